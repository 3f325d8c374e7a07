"""Lets a shortcut stand for the exact generation where it says the same.

Before many responses are made, a few drawn at random are made both ways. If all N agree, fewer than
1 - 0.05^(1/N) of all differ, with 95 % confidence: 5 % for N = 59 (the rule of three). If one
differs, or fewer than N are wanted at all, the exact generation is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch

from disp_engine.context import RunContext
from disp_engine.interfaces import Generation
from disp_engine.stages import Stage
from disp_engine.training.order import generator_for

N = 59
ALPHA = 0.05
_STREAM = 59
T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """How many of the drawn responses differed; `bound` is what their share stays below."""

    checked: int
    differing: int

    @property
    def passed(self) -> bool:
        """Whether the shortcut may be taken."""
        return self.checked >= N and self.differing == 0

    @property
    def bound(self) -> float | None:
        """None where the shortcut is not taken."""
        return 1 - ALPHA ** (1 / self.checked) if self.passed else None

    def to_json(self) -> dict[str, Any]:
        """The comparison as the report holds it."""
        return asdict(self) | {"passed": self.passed, "bound": self.bound}


@dataclass
class Gate:
    """Compares before each of a run's large generations, and remembers what it `found`.

    `stage` is what the run is at.
    """

    seed: int
    context: RunContext
    batch: int
    stage: str = ""
    found: dict[str, Comparison] = field(default_factory=dict)

    def let_through(
        self,
        name: str,
        asked: Generation,
        items: Sequence[T],
        kept: Stage,
        answer: Callable[[Sequence[T], Generation], Sequence[Any]],
    ) -> Generation:
        """The generation to use for all `items`; what was found is kept in `kept`."""
        if asked.exact:
            return asked
        file = f"{name}-gate.json"
        if not kept.has(file):
            kept.write_json(file, asdict(self._compare(asked, items, answer)))
        name = f"{self.stage}: {name}"
        found = self.found[name] = Comparison(**kept.read_json(file))
        self.context.message("info" if found.passed else "warn", _told(name, found))
        return asked if found.passed else asked.exactly()

    def _compare(
        self,
        asked: Generation,
        items: Sequence[T],
        answer: Callable[[Sequence[T], Generation], Sequence[Any]],
    ) -> Comparison:
        """Answer drawn items both ways, as far as the first batch in which some differ."""
        if len(items) < N:
            return Comparison(0, 0)
        order = torch.randperm(len(items), generator=generator_for(self.seed, 0, _STREAM))
        drawn = [items[place] for place in order[:N].tolist()]
        checked = differing = 0
        while checked < N and not differing:
            batch = drawn[checked : checked + self.batch]
            pairs = zip(answer(batch, asked), answer(batch, asked.exactly()), strict=True)
            differing = sum(quick != exact for quick, exact in pairs)
            checked += len(batch)
        return Comparison(checked, differing)


def _told(name: str, found: Comparison) -> str:
    if found.bound is not None:
        return (
            f"{name}: the shortcut is taken: {found.checked} of {found.checked} responses were "
            f"the same, fewer than {found.bound:.1%} of all differ"
        )
    if not found.checked:
        return f"{name}: the exact generation is used: fewer than {N} responses are wanted"
    return (
        f"{name}: the exact generation is used: with the shortcut {found.differing} of "
        f"{found.checked} responses differed"
    )
