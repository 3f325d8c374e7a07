"""A response while the block sampler fills it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Words:
    """The ids a generation turns on."""

    mask: int
    suppressed: tuple[int, ...] = ()
    stops: tuple[tuple[int, ...], ...] = ()
    suffix: tuple[int, ...] = ()


@dataclass
class Row:
    """One response on its way: `ids` hold its G positions, `quota` the commits of each step."""

    prompt: Float[Tensor, "P D"]
    ids: Int[Tensor, " G"]
    words: Words
    generator: torch.Generator | None
    stop: int | None = None
    quota: list[int] = field(default_factory=list)

    def masks(self, start: int, end: int) -> Int[Tensor, " M"]:
        """Places that are still to be filled."""
        return start + (self.ids[start:end] == self.words.mask).nonzero()[:, 0]

    def begin(self, start: int, end: int, steps: int, schedule: Schedule) -> None:
        """Spread the block's masks over its steps."""
        quota = schedule.quotas(len(self.masks(start, end)), steps)
        self.quota = quota + [0] * (steps - len(quota))

    def active(self, start: int, end: int, step: int) -> bool:
        """Whether this step can still change what the response says."""
        if self.stop is not None and (self.stop <= start or not len(self.masks(0, self.stop))):
            return False
        return self.quota[step] > 0 and len(self.masks(start, end)) > 0

    def open(self, end: int) -> Int[Tensor, " M"]:
        """Positions that compete: masks before the stop, or before the end of the block."""
        return self.masks(0, end if self.stop is None else min(end, self.stop))

    def commit(self, positions: Int[Tensor, " k"], ids: Int[Tensor, " k"]) -> None:
        """Fill positions; once a stop is found, official code looks for the first of them alone."""
        self.ids[positions] = ids
        for stop in self.words.stops:
            found = _first(self.ids.tolist(), stop)
            if found is not None and (self.stop is None or found < self.stop):
                self.stop = found
            if self.stop is not None:
                return

    def answer(self) -> Int[Tensor, " T"]:
        """What it says, with the suffix."""
        return torch.cat([self.ids[: self.stop], self._suffix])

    def written(self) -> Int[Tensor, " T"]:
        """All of it as it stands, with the suffix."""
        return torch.cat([self.ids, self._suffix])

    @property
    def _suffix(self) -> Int[Tensor, " S"]:
        return self.ids.new_tensor(self.words.suffix)


def _first(ids: Sequence[int], stop: Sequence[int]) -> int | None:
    """Where the stop sequence first occurs."""
    width = len(stop)
    return next(
        (at for at in range(len(ids) - width + 1) if width and tuple(ids[at : at + width]) == stop),
        None,
    )
