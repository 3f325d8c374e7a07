"""How many masks each step of a block commits.

n masks, S steps, k_1..k_S commits. The named schedules spend n along a curve sigma(t), t in [0, 1].
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from disp_engine.errors import InvalidRequestError

Curve = Literal["uniform", "shift", "cosine", "linear", "logit_normal"]

_CURVES: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "shift": lambda t, s: s * t / (1 + (s - 1) * t),
    "cosine": lambda t, _: (1 - torch.cos(math.pi * t)) / 2,
    "linear": lambda t, _: t,
    "logit_normal": lambda t, _: torch.special.ndtr(torch.logit(t)),
}


@dataclass(frozen=True)
class Schedule:
    """`uniform` shares masks evenly, the remainder first; `shift` above 1 starts slowly.

    The other curves commit at least one mask a step, so they take at most n steps. They are
    LaViDa's (https://arxiv.org/abs/2505.16839), `shift` with its default of 3.
    """

    curve: Curve = "uniform"
    shift: float = 3.0

    def quotas(self, masks: int, steps: int) -> list[int]:
        """Commits of each step; they sum to `masks`."""
        if self.curve == "uniform":
            share, remainder = divmod(masks, steps)
            return [share + (step < remainder) for step in range(steps)]
        if not self.shift > 0:
            raise InvalidRequestError(f"schedule: shift must be positive, not {self.shift}.")
        if masks == 0:
            return []
        return self._along(self._spent(masks, min(steps, masks)), masks)

    def _spent(self, masks: int, steps: int) -> Int[Tensor, " S"]:
        t = torch.linspace(0, 1, steps + 1)
        return (_CURVES[self.curve](t, self.shift) * masks).long().diff()

    @staticmethod
    def _along(spent: Int[Tensor, " S"], masks: int) -> list[int]:
        """At least one commit a step; what that is too much is taken back in turn.

        sigma(1) = 1, of which rounding may leave less: what is then too little comes last.
        """
        quotas = spent.clamp(min=1).tolist()
        quotas[-1] += max(0, masks - sum(quotas))
        step = 0
        while sum(quotas) > masks:
            quotas[step] -= quotas[step] > 1
            step = (step + 1) % len(quotas)
        return quotas[::-1]
