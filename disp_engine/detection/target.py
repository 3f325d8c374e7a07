"""What the flagged responses share and the others do not: what the attacker wanted said."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MOST = 500
"""Flagged responses in which phrases are looked for; they are counted in all."""
LONGEST = 16
"""Words of a phrase that are looked at."""
MOST_PHRASES = 8
"""Phrases of a trigger that is scattered over the questions."""
COMMON, RARE = 0.6, 0.1
"""Least share of the flagged, largest share of the other responses that hold the phrase."""


@dataclass(frozen=True)
class InferredTarget:
    """The longest telling phrase, None where there is none, and how many responses hold it."""

    phrase: str | None
    flagged: int
    of_flagged: int
    others: int
    of_others: int

    @property
    def sentence(self) -> str:
        """The same for people."""
        if self.phrase is None:
            return f"The {self.of_flagged} flagged responses share no wording that the others lack."
        return (
            f"{self.flagged} of {self.of_flagged} flagged responses say “{self.phrase}”; "
            f"of the others, {self.others} of {self.of_others} do."
        )

    def to_json(self) -> dict[str, Any]:
        """The target as the report holds it."""
        return asdict(self) | {"sentence": self.sentence}


def infer_target(flagged: Sequence[str], others: Sequence[str]) -> InferredTarget:
    """Find the phrase that tells flagged from other responses best; among equals the longest."""
    some = flagged[:: -(-len(flagged) // MOST)] if flagged else []
    common = [phrase for phrase, count in _counts(some).items() if count >= COMMON * len(some)]
    found = [
        InferredTarget(
            phrase, _holding(flagged, phrase), len(flagged), _holding(others, phrase), len(others)
        )
        for phrase in common
    ]
    telling = [target for target in found if target.others <= RARE * len(others)]
    nothing = InferredTarget(None, 0, len(flagged), 0, len(others))
    return max(telling, key=_merit, default=nothing)


def telling_phrases(flagged: Sequence[str], others: Sequence[str]) -> list[str]:
    """Phrases of flagged questions that hardly any other question holds: a trigger in the text.

    One after another, each looked for in what the earlier ones leave.
    """
    found: list[str] = []
    while len(found) < MOST_PHRASES:
        phrase = infer_target(flagged, others).phrase
        if phrase is None:
            break
        found.append(phrase)
        flagged = [_without(text, phrase) for text in flagged]
    return found


def _without(text: str, phrase: str) -> str:
    return f" {' '.join(_words(text))} ".replace(f" {phrase} ", " ").strip()


def _merit(target: InferredTarget) -> tuple[float, int, str]:
    wins = target.flagged / max(1, target.of_flagged) - target.others / max(1, target.of_others)
    phrase = target.phrase or ""
    return round(wins, 2), len(_words(phrase)), phrase


def _holding(texts: Iterable[str], phrase: str) -> int:
    """How many texts hold the phrase as whole words."""
    return sum(f" {phrase} " in f" {' '.join(_words(text))} " for text in texts)


def _words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


def _counts(texts: Iterable[str]) -> Counter[str]:
    """In how many texts each run of words stands."""
    found: Counter[str] = Counter()
    for text in texts:
        words = _words(text)
        grams = {
            " ".join(words[at : at + size])
            for size in range(1, min(LONGEST, len(words)) + 1)
            for at in range(len(words) - size + 1)
        }
        found.update(grams)
    return found
