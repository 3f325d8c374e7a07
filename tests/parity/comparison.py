"""What one comparison says, and what a family's recordings must offer."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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


class Recorded(Protocol):
    """A family's recordings: what was recorded, and what is compared with it."""

    expected: Mapping[str, Tensor]
    skipped: Mapping[str, str]
    """Recorded tensors that are not compared, each with the reason."""

    def comparisons(self) -> Iterator[tuple[str, Callable[[], Mapping[str, Comparison]]]]:
        """What there is to compare, by case; one that raises does not stop the others."""
        ...


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
    """Comparisons by the name of the tensor they are about."""
    return {f"{c.case}.{c.quantity}": c for c in found}


def taken_gradient(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, which is cleared."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    parameter.grad = None
    return gradient
