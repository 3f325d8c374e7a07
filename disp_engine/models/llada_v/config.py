"""LLaDA-V's `config.json`: Llama's keys beside LLaVA's."""

from pathlib import Path

from disp_engine.errors import InvalidModelError
from disp_engine.models.llava.config import (
    LlavaConfig,
    choice,
    number,
    only_these,
    pictures,
    read_config,
    sizes,
)

_SIZES = {
    name: name
    for name in (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
}
_FIXED = {
    "tie_word_embeddings": (False, None, True),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "rope_scaling": (None,),
}
_USED = _SIZES.keys() | {
    "architectures",
    "head_dim",
    "hidden_act",
    "image_aspect_ratio",
    "image_grid_pinpoints",
    "model_type",
    "rms_norm_eps",
    "rope_theta",
    "tokenizer_model_max_length",
}


class LladaVConfig(LlavaConfig):
    """The part of `config.json` that decides what LLaDA-V computes."""

    @classmethod
    def from_folder(cls, folder: Path) -> "LladaVConfig":
        """Read the folder's JSON files."""
        raw, vision = read_config(folder, _USED | _FIXED.keys())
        only_these(raw, _FIXED, "LLaDA-V")
        found = sizes(raw, _SIZES)
        if raw.get("head_dim") not in (None, found["hidden_size"] // found["num_attention_heads"]):
            raise InvalidModelError(
                "config.json: head_dim must be hidden_size / num_attention_heads."
            )
        choice(raw, "hidden_act", ("silu",), "silu")
        return cls(
            **found,
            rms_norm_eps=number(raw, "rms_norm_eps", 1e-5),
            rope_theta=number(raw, "rope_theta", 5e5),
            tied_head=bool(raw.get("tie_word_embeddings")),
            **pictures(raw, vision, longest=8192),
        )
