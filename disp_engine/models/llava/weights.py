"""LLaVA's names for tensors, and the way from a checkpoint into modules, one tensor at a time."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from accelerate.utils import set_module_tensor_to_device
from torch import nn

from disp_engine.models.tensors import Checkpoint

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")

_RAW_LLADA = (
    (r"transformer\.wte\.", "embed_tokens."),
    (r"transformer\.ln_f\.", "norm."),
    (r"transformer\.blocks\.(\d+)\.([qkv]_proj)\.", r"layers.\1.self_attn.\2."),
    (r"transformer\.blocks\.(\d+)\.attn_out\.", r"layers.\1.self_attn.o_proj."),
    (r"transformer\.blocks\.(\d+)\.ff_proj\.", r"layers.\1.mlp.gate_proj."),
    (r"transformer\.blocks\.(\d+)\.up_proj\.", r"layers.\1.mlp.up_proj."),
    (r"transformer\.blocks\.(\d+)\.ff_out\.", r"layers.\1.mlp.down_proj."),
    (r"transformer\.blocks\.(\d+)\.attn_norm\.", r"layers.\1.input_layernorm."),
    (r"transformer\.blocks\.(\d+)\.ff_norm\.", r"layers.\1.post_attention_layernorm."),
)


def llama_name(name: str) -> str:
    """A tensor's name in HF Llama, given its name there or as LLaDA-8B and LaViDa have it."""
    if name.startswith("model.transformer.ff_out."):
        return name.replace("model.transformer.ff_out.", "lm_head.")
    for pattern, replacement in _RAW_LLADA:
        renamed, found = re.subn(rf"^model\.{pattern}", f"model.{replacement}", name)
        if found:
            return renamed
    return name


Parts = Mapping[str, nn.Module]
"""Modules by the prefix that their tensors' names have; they may stand on the `meta` device."""


def shapes(parts: Parts) -> dict[str, tuple[int, ...]]:
    """What the parts need, by name."""
    return {
        prefix + name: tuple(value.shape)
        for prefix, part in parts.items()
        for name, value in part.state_dict().items()
    }


def fill(
    parts: Parts,
    checkpoint: Checkpoint,
    described_by: Iterable[Path],
    place: Callable[[str], torch.device],
    dtype: torch.dtype | None,
) -> str:
    """Give the parts their tensors; return the revision: sha256 over all but the projector's.

    `place` gives each tensor's device by its name. One tensor at a time is in memory beside the
    model. A vocabulary longer than a part's is cut, as the official loader does: rows that no token
    uses leave the softmax.
    """
    digest = hashlib.sha256()
    for path in described_by:
        digest.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())
    for name, shape in sorted(shapes(parts).items()):
        tensor = checkpoint.tensor(name)
        if not name.startswith(PROJECTOR):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
        cut = tensor[: shape[0]].clone() if tensor.shape != shape else tensor
        prefix = max((p for p in parts if name.startswith(p)), key=len)
        set_module_tensor_to_device(
            parts[prefix], name.removeprefix(prefix), place(name), cut, dtype or cut.dtype
        )
    return digest.hexdigest()
