"""How one recorded quantity is held against ours."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

ACTIVATION, GRADIENT, EXACT = 2e-4, 1e-3, 0.0


@dataclass(frozen=True)
class Comparison:
    """One quantity of one case.

    `error` is relative to the largest recorded value; None where the two cannot be compared.
    """

    case: str
    quantity: str
    error: float | None
    tolerance: float
    holds: bool


def compare(case: str, quantity: str, got: Tensor, want: Tensor, tolerance: float) -> Comparison:
    """Compare values, or ids and masks one by one (the error is then the share that differs)."""
    if got.shape != want.shape:
        return Comparison(case, quantity, None, tolerance, holds=False)
    if tolerance == EXACT:
        error = (got != want).double().mean().item()
    else:
        largest = want.double().abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        error = ((got.double() - want.double()).abs().max() / largest).item()
    told = error if math.isfinite(error) else None
    return Comparison(case, quantity, told, tolerance, holds=error <= tolerance)


def named(found: Iterable[Comparison]) -> dict[str, Comparison]:
    return {f"{c.case}.{c.quantity}": c for c in found}


Case = tuple[str, Callable[[], Mapping[str, Comparison]]]
"""A case's name, and what compares all that is recorded of it (by tensor name)."""


class Recording(Protocol):
    """A fixture folder and the adapter loaded from it, as each family reads them."""

    expected: Mapping[str, Tensor]

    def __init__(self, folder: Path) -> None: ...

    def cases(self) -> Iterator[Case]:
        """What there is to compare, found in `meta.json`."""
        ...
