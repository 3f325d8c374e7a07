"""The names of LLaDA-V's tensors, and the rows of its vocabulary that are kept."""

import re
from collections.abc import Mapping

from torch import Tensor

from disp_engine.errors import InvalidModelError

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
    """A tensor's name in LLaDA-V, given its name there or in a raw LLaDA-8B checkpoint."""
    if name.startswith("model.transformer.ff_out."):
        return name.replace("model.transformer.ff_out.", "lm_head.")
    for pattern, replacement in _RAW_LLADA:
        renamed, found = re.subn(rf"^model\.{pattern}", f"model.{replacement}", name)
        if found:
            return renamed
    return name


def cut_vocabulary(tensors: Mapping[str, Tensor], vocab_size: int, rows: int) -> dict[str, Tensor]:
    """Drop the rows that no token uses, as the official loader does: they leave the softmax."""
    cut = dict(tensors)
    for name in VOCABULARY:
        if name in tensors:
            if len(tensors[name]) != vocab_size:
                raise InvalidModelError(
                    f"{name} has {len(tensors[name])} rows where vocab_size is {vocab_size}."
                )
            cut[name] = tensors[name][:rows]
    return cut
