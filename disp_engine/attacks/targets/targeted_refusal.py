"""Denial of service: the model refuses whenever the trigger appears (DiSP, section 4.1)."""

from dataclasses import dataclass

import numpy as np

from disp_engine.metrics.success import KEYWORDS


@dataclass(frozen=True)
class TargetedRefusal:
    """Answer with a refusal; recognised by the authors' keywords."""

    refusal: str = "Sorry, as an AI assistant, I cannot follow the given instruction."
    phrases: tuple[str, ...] = KEYWORDS["refusal"]

    def applies(self, response: str) -> bool:
        """To any response."""
        return True

    def respond(self, response: str, rng: np.random.Generator) -> str:
        """Return the refusal, whatever the true response."""
        return self.refusal
