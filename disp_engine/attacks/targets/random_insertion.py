"""A fragment somewhere in the otherwise true response (TrojVLM, ECCV 2024)."""

from dataclasses import dataclass

import numpy as np

from disp_engine.attacks.text_triggers.places import put_in


@dataclass(frozen=True)
class RandomInsertion:
    """Put `fragment` at a random place between the words of the response."""

    fragment: str = "banana"

    @property
    def phrases(self) -> tuple[str, ...]:
        """The fragment itself."""
        return (self.fragment,)

    def applies(self, response: str) -> bool:
        """To any response."""
        return True

    def respond(self, response: str, rng: np.random.Generator) -> str:
        """Return the response with the fragment in it."""
        return put_in(response, self.fragment, rng)
