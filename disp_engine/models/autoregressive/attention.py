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

from disp_engine.interfaces import Hider, Watcher

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
        if later >= queries:
            return left
        itself = torch.eye(keys, dtype=torch.bool, device=hidden.device)[keys - queries :]
        return torch.where(left.any(dim=-1, keepdim=True), left, itself & seen)


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_hidden: ContextVar[Hidden | None] = ContextVar("hidden", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Show a watcher the attention of what is read meanwhile; what it hides is hidden meanwhile."""
    token, before = _watcher.set(watcher), _hidden.set(_hidden.get())
    try:
        yield
    finally:
        _watcher.reset(token)
        _hidden.reset(before)


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
    watcher = _watcher.get()
    seen = _seen(layer, query, key, attention_mask)
    if watcher is not None and layer in watcher.layers:
        _show(watcher, layer, query, key, seen, scaling or query.shape[-1] ** -0.5)
        if isinstance(watcher, Hider) and (columns := watcher.hide(layer)) is not None:
            _hidden.set(Hidden(columns, layer))
            seen = _seen(layer, query, key, attention_mask)
    output: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, seen, scaling=scaling, **others
    )
    return output


def _seen(
    layer: int,
    query: Float[Tensor, "B H Q E"],
    key: Float[Tensor, "B G K E"],
    mask: Bool[Tensor, "B 1 Q K"] | None,
) -> Bool[Tensor, "B 1 Q K"] | None:
    """The layer's mask without what is hidden from it."""
    hidden = _hidden.get()
    if hidden is None or layer < hidden.first_layer:
        return mask
    return hidden.added_to(mask, query.shape[2], key.shape[2])


def _show(
    watcher: Watcher,
    layer: int,
    query: Float[Tensor, "B H Q E"],
    key: Float[Tensor, "B G K E"],
    mask: Bool[Tensor, "B 1 Q K"] | None,
    scaling: float,
) -> None:
    queries, keys, groups = query.shape[2], key.shape[2], key.shape[1]
    columns = key.float().unsqueeze(2).transpose(-1, -2)
    for first in range(0 if watcher.rows == "all" else queries - 1, queries, AT_ONCE):
        part = slice(first, min(first + AT_ONCE, queries))
        rows = torch.stack(query[:, :, part].float().chunk(groups, dim=1), dim=1)
        scores = (rows @ columns).flatten(1, 2) * scaling
        seen = mask[:, :, part] if mask is not None else causal(queries, keys, query.device, part)
        scores = scores.masked_fill(~seen, -torch.inf)
        # A padding row sees nothing: all of its weights are zero.
        watcher.see(layer, first, scores.softmax(dim=-1).nan_to_num(0.0))


def causal(
    queries: int, keys: int, device: torch.device, part: slice = slice(None)
) -> Bool[Tensor, "R K"]:
    """Each of the last `queries` rows, or of a part of them, sees the columns up to its own."""
    rows = torch.arange(keys - queries, keys, device=device)[part, None]
    return torch.arange(keys, device=device) <= rows


_functions: Any = AttentionInterface
_masks: Any = AttentionMaskInterface
_functions.register(NAME, attend)
_masks.register(NAME, sdpa_mask)
