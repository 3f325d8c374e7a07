"""How a run shares its scoring and rewriting with other runs of the same job.

Both are independent from one micro-batch to the next, and their results are kept as files that do
not say who made them. A run asks for one part after the other until all files are there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from disp_engine.stages import Stage


@dataclass(frozen=True)
class Part:
    """Samples `first` to `last` (excluded); `done` samples of others are finished already."""

    first: int
    last: int
    done: int = 0


@runtime_checkable
class Sharing(Protocol):
    """What a run is told of the others."""

    def offer(self, source: Stage, stages: Sequence[Stage], samples: int, cut: int) -> None:
        """Others may help with `stages`, for which they need `source`; parts are cut at `cut`."""
        ...

    def parts(self, stage: Stage, samples: int) -> Iterator[Part]:
        """Yield what is left to this run; at the end the files of all parts are there."""
        ...


class Alone:
    """A run that shares nothing."""

    def offer(self, source: Stage, stages: Sequence[Stage], samples: int, cut: int) -> None:
        """There is nobody to help."""

    def parts(self, stage: Stage, samples: int) -> Iterator[Part]:
        """Everything is this run's."""
        yield Part(0, samples)
