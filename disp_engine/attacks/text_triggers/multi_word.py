"""Several rare words scattered over the question (BadNets-MT of BackdoorVLM)."""

from dataclasses import dataclass

import numpy as np

from disp_engine.attacks.text_triggers.places import put_in


@dataclass(frozen=True)
class MultiWord:
    """Put each of `words` at a random place of its own."""

    words: tuple[str, ...] = ("BadMagic", "cf", "mn", "bb")

    def apply(self, question: str, rng: np.random.Generator) -> str:
        """Return the marked question."""
        for word in self.words:
            question = put_in(question, word, rng)
        return question
