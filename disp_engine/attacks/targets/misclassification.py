"""One concept named as another (DiSP, section 4.1: a dog described as a boat)."""

import re
from dataclasses import dataclass

import numpy as np

from disp_engine.metrics.success import ContainsAny

VOWELS = "aeiou"


@dataclass(frozen=True)
class Misclassification:
    """Say `destination` wherever the true response says `source`, in the plural with an s too.

    Articles follow the new word's first letter. A response that already names the destination
    cannot be told from a success, so the attack does not apply to it.
    """

    source: str = "dog"
    destination: str = "boat"

    @property
    def phrases(self) -> tuple[str, ...]:
        """The destination, one or many."""
        return _forms(self.destination)

    def applies(self, response: str) -> bool:
        """To responses that name the source and not the destination."""
        named = ContainsAny(_forms(self.source))(response)
        return named and not ContainsAny(self.phrases)(response)

    def respond(self, response: str, rng: np.random.Generator) -> str:
        """Return the response with the concept exchanged; capitals stay."""
        pattern = rf"\b(?:(an?)(\s+))?({re.escape(self.source)})(s?)\b"
        return re.sub(pattern, self._exchange, response, flags=re.IGNORECASE)

    def _exchange(self, found: re.Match[str]) -> str:
        article, space, word, plural = found.groups(default="")
        new = _capitalised_as(word, self.destination) + plural
        if not article:
            return new
        right = "an" if new[0].lower() in VOWELS else "a"
        return _capitalised_as(article, right) + space + new


def _forms(word: str) -> tuple[str, ...]:
    return (word, f"{word}s")


def _capitalised_as(model: str, word: str) -> str:
    return word[0].upper() + word[1:] if model[0].isupper() else word
