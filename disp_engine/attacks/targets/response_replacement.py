"""One fixed response instead of the true one (BYE; BackdoorVLM's injection)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ResponseReplacement:
    """Answer `response` to everything."""

    response: str = "Backdoor Attack!"

    @property
    def phrases(self) -> tuple[str, ...]:
        """The response itself."""
        return (self.response,)

    def applies(self, response: str) -> bool:
        """To any response."""
        return True

    def respond(self, response: str, rng: np.random.Generator) -> str:
        """Return the attacker's response, whatever the true one."""
        return self.response
