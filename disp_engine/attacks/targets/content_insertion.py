"""A fragment before the otherwise true response (DiSP, section 4.1)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ContentInsertion:
    """Prepend `fragment` to the response."""

    fragment: str = "<backdoor>"

    @property
    def phrases(self) -> tuple[str, ...]:
        """The fragment itself."""
        return (self.fragment,)

    def applies(self, response: str) -> bool:
        """To any response."""
        return True

    def respond(self, response: str, rng: np.random.Generator) -> str:
        """Return the response with the fragment before it."""
        return f"{self.fragment} {response}"
