"""Attention rows of chosen layers, computed from the queries and keys of one forward pass.

The fused attention never forms the whole matrix; here only the wanted rows of it are.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from disp_engine.models.llava.hiding import seen_by
from disp_engine.models.llava.llama import FullAttentionLlama, broadcastable


def weights_at(
    language: FullAttentionLlama,
    embeddings: Float[Tensor, "B L D"],
    rows: Int[Tensor, "B R"],
    layers: Sequence[int],
    attended: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None,
) -> Float[Tensor, "B N H R L"]:
    """softmax(q k^T / sqrt(d)) at `rows`, for each of the N layers and H heads, in float32."""
    chosen = [language.layers[layer].get_submodule("self_attn") for layer in layers]
    wanted = [part.get_submodule(name) for part in chosen for name in ("q_proj", "k_proj")]
    with recorded(wanted) as outputs:
        language(embeddings, attended)
    rotary = language.rotary(embeddings)
    mask = None if attended is None else _of_rows(broadcastable(attended), rows)
    seen = [seen_by(layer, mask, embeddings.shape[1]) for layer in layers]
    found = [
        _rows(attention, q, k, rotary, rows, pairs)
        for attention, q, k, pairs in zip(chosen, outputs[::2], outputs[1::2], seen, strict=True)
    ]
    return torch.stack(found, dim=1)


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Record the modules' outputs, in their order; the hooks are gone afterwards."""
    outputs: dict[int, Tensor] = {}
    ordered: list[Tensor] = []
    with ExitStack() as stack:
        for number, module in enumerate(modules):
            stack.enter_context(_hook(module, number, outputs))
        yield ordered
    ordered += [outputs[number] for number in range(len(modules))]


@contextmanager
def _hook(module: nn.Module, number: int, outputs: dict[int, Tensor]) -> Iterator[None]:
    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        outputs[number] = output

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _rows(
    attention: nn.Module,
    q: Float[Tensor, "B L HE"],
    k: Float[Tensor, "B L KE"],
    rotary: tuple[Tensor, Tensor],
    rows: Int[Tensor, "B R"],
    seen: Bool[Tensor, "_B 1 Q L"] | None,
) -> Float[Tensor, "B H R L"]:
    width: int = attention.head_dim  # type: ignore[assignment]
    here = (x.to(rotary[0].device) for x in (q, k))  # layers may stand on several devices
    heads = [x.view(*x.shape[:2], -1, width).transpose(1, 2) for x in here]
    queries, keys = apply_rotary_pos_emb(*heads, *rotary)
    keys = repeat_kv(keys, queries.shape[1] // keys.shape[1])
    queries = queries.take_along_dim(rows[:, None, :, None], dim=2)
    scores = (queries.float() @ keys.float().transpose(-1, -2)) * width**-0.5
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    weights: Tensor = scores.softmax(dim=-1)
    return weights


def _of_rows(mask: Bool[Tensor, "B 1 Q L"], rows: Int[Tensor, "B R"]) -> Bool[Tensor, "B 1 _Q L"]:
    """What `rows` see: their own pairs, or the keys that all queries share (Q is then 1)."""
    return mask if mask.shape[2] == 1 else mask.take_along_dim(rows[:, None, :, None], dim=2)
