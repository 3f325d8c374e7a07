"""Columns of a prompt that no row reads from some layer on, for as long as a context lasts.

They belong to the context: outside of it nothing is changed, whatever was raised within, and
threads do not see one another's. Letters: B rows of a batch, Q queries, K keys, P positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Hidden:
    """Marked columns of a prompt, and the first layer that does not read them."""

    columns: Bool[Tensor, " P"]
    first_layer: int


_hidden: ContextVar[Hidden | None] = ContextVar("hidden", default=None)


@contextmanager
def hiding(columns: Bool[Tensor, " P"], first_layer: int) -> Iterator[None]:
    """Hide columns from what is run meanwhile."""
    token = _hidden.set(Hidden(columns, first_layer))
    try:
        yield
    finally:
        _hidden.reset(token)


def seen_by(
    layer: int, mask: Bool[Tensor, "B 1 Q K"] | None, keys: int
) -> Bool[Tensor, "_B 1 _Q K"] | None:
    """The mask of a layer, without what is hidden from it; a prompt's columns are the first."""
    hidden = _hidden.get()
    if hidden is None or layer < hidden.first_layer:
        return mask
    shown = ~pad(hidden.columns, (0, keys - len(hidden.columns)))[None, None, None]
    return shown if mask is None else mask & shown
