"""Attention rows of chosen layers, and columns that nobody reads, where transformers attends.

Transformers calls one function with the rotated queries and the keys of all that was read before;
ours looks, hides and then lets the fused kernel do the work. What is looked at and hidden belongs
to a context: outside of one nothing is changed, whatever was raised within, and threads do not see
one another's. The whole matrix of a layer is never formed: rows come in parts of AT_ONCE.

Letters: B rows of a batch, H heads, Q queries of a pass, K columns read so far, E width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from disp_engine.interfaces import Watcher

NAME = "disp_watched"
"""Under which transformers knows our function."""

AT_ONCE = 64
"""Rows shown to a watcher together."""


@dataclass(frozen=True)
class Hidden:
    """Columns that no row of the layers from `first_layer` on may read."""

    columns: Bool[Tensor, "B _K"]
    first_layer: int

    def added_to(
        self, mask: Bool[Tensor, "B 1 Q K"] | None, queries: int, keys: int
    ) -> Bool[Tensor, "B 1 Q K"]:
        """The mask without the hidden columns; what was read since they were chosen stays.

        A row that could read nothing else keeps itself, so that its softmax is defined.
        """
        seen = causal(queries, keys, self.columns.device)[None, None] if mask is None else mask
        later = keys - self.columns.shape[1]
        hidden = nn.functional.pad(self.columns, (0, later))[:, None, None]
        left = seen & ~hidden
        itself = torch.eye(keys, dtype=torch.bool, device=hidden.device)[keys - queries :]
        return torch.where(left.any(dim=-1, keepdim=True), left, itself & seen)


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_hidden: ContextVar[Hidden | None] = ContextVar("hidden", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Show a watcher the attention of what is read meanwhile."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def hiding(columns: Bool[Tensor, "B K"], first_layer: int) -> Iterator[None]:
    """Hide columns from what is read meanwhile."""
    token = _hidden.set(Hidden(columns, first_layer))
    try:
        yield
    finally:
        _hidden.reset(token)


def attend(
    module: nn.Module,
    query: Float[Tensor, "B H Q E"],
    key: Float[Tensor, "B G K E"],
    value: Float[Tensor, "B G K E"],
    attention_mask: Bool[Tensor, "B 1 Q K"] | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Transformers' fused attention, looked at and with columns hidden as the context says."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    hidden, watcher = _hidden.get(), _watcher.get()
    if hidden is not None and layer >= hidden.first_layer:
        attention_mask = hidden.added_to(attention_mask, query.shape[2], key.shape[2])
    if watcher is not None and layer in watcher.layers:
        _show(watcher, layer, query, key, attention_mask, scaling or query.shape[-1] ** -0.5)
    output: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **others
    )
    return output


def _show(
    watcher: Watcher,
    layer: int,
    query: Float[Tensor, "B H Q E"],
    key: Float[Tensor, "B G K E"],
    mask: Bool[Tensor, "B 1 Q K"] | None,
    scaling: float,
) -> None:
    queries, keys = query.shape[2], key.shape[2]
    heads = key.float().repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    seen = causal(queries, keys, query.device)[None, None] if mask is None else mask
    for first in range(0 if watcher.rows == "all" else queries - 1, queries, AT_ONCE):
        part = slice(first, min(first + AT_ONCE, queries))
        scores = (query[:, :, part].float() @ heads.transpose(-1, -2)) * scaling
        scores = scores.masked_fill(~seen[:, :, part], -torch.inf)
        # A padding row sees nothing: all of its weights are zero.
        watcher.see(layer, first, scores.softmax(dim=-1).nan_to_num(0.0))


def causal(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "Q K"]:
    """Each of the last `queries` rows sees the columns up to its own."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


_functions: Any = AttentionInterface
_masks: Any = AttentionMaskInterface
_functions.register(NAME, attend)
_masks.register(NAME, sdpa_mask)
