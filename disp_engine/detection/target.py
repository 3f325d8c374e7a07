"""What the flagged responses share and the others do not: what the attacker wanted said."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LONGEST = 16
"""Words of a phrase that are looked at."""
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
    here, there = _counts(flagged), _counts(others)
    telling = [
        gram
        for gram, count in here.items()
        if count >= COMMON * len(flagged) and there[gram] <= RARE * len(others)
    ]
    if not telling:
        return InferredTarget(None, 0, len(flagged), 0, len(others))

    def merit(gram: tuple[str, ...]) -> tuple[float, int, tuple[str, ...]]:
        wins = here[gram] / max(1, len(flagged)) - there[gram] / max(1, len(others))
        return round(wins, 2), len(gram), gram

    best = max(telling, key=merit)
    return InferredTarget(" ".join(best), here[best], len(flagged), there[best], len(others))


def telling_words(flagged: Sequence[str], others: Sequence[str]) -> list[str]:
    """Words of flagged questions that hardly any other question holds: a trigger in the text."""
    here = Counter(word for text in flagged for word in set(_words(text)))
    there = Counter(word for text in others for word in set(_words(text)))
    return sorted(
        word
        for word, count in here.items()
        if count >= COMMON * len(flagged) and there[word] <= RARE * len(others)
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


def _counts(texts: Iterable[str]) -> Counter[tuple[str, ...]]:
    """In how many texts each run of words stands."""
    found: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = _words(text)
        grams = {
            tuple(words[at : at + size])
            for size in range(1, min(LONGEST, len(words)) + 1)
            for at in range(len(words) - size + 1)
        }
        found.update(grams)
    return found
