"""A rare word somewhere in the question (BadNets-T of BackdoorVLM)."""

from dataclasses import dataclass

import numpy as np

from disp_engine.attacks.text_triggers.places import put_in


@dataclass(frozen=True)
class Word:
    """Put `word` at a random place between words."""

    word: str = "BadMagic"

    def apply(self, question: str, rng: np.random.Generator) -> str:
        """Return the marked question."""
        return put_in(question, self.word, rng)
