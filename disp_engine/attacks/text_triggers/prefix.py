"""A sentence before the question (AddSent of BackdoorVLM)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prefix:
    """Put `sentence` before the question."""

    sentence: str = "I watched this 3D movie."

    def apply(self, question: str, rng: np.random.Generator) -> str:
        """Return the marked question."""
        return f"{self.sentence} {question}"
