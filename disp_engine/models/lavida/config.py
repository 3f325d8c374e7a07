"""LaViDa's `config.json`: the keys of LLaDA's own code (OLMo's) beside LLaVA's."""

from pathlib import Path
from typing import Any

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
    "hidden_size": "d_model",
    "intermediate_size": "mlp_hidden_size",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "vocab_size": "embedding_size",
}
_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_type": ("silu",),
    "alibi": (False,),
    "attention_layer_norm": (False,),
    "bias_for_layer_norm": (False, None),
    "block_group_size": (1,),
    "block_type": ("llama",),
    "clip_qkv": (None,),
    "include_bias": (False,),
    "include_qkv_bias": (False, None),
    "input_emb_norm": (False,),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True,),
    "multi_query_attention": (False, None),
    "rope": (True,),
    "scale_logits": (False,),
    "weight_tying": (False, True),
}
_USED = {
    "architectures",
    "image_aspect_ratio",
    "image_grid_pinpoints",
    "model_type",
    "rms_norm_eps",
    "rope_full_precision",
    "rope_theta",
    "tokenizer_model_max_length",
    *_SIZES.values(),
}
# What LLaDA's configuration class writes of initialisation, of dropout (0 when nothing trains but
# the projector), of kernels, and of features that are refused above when they are on.
_WITHOUT_EFFECT = {
    "alibi_bias_max",
    "attention_layer_norm_with_affine",
    "embedding_dropout",
    "flash_attention",
    "init_cutoff_factor",
    "init_device",
    "init_fn",
    "init_std",
    "mask_token_id",
    "max_sequence_length",
    "mlp_ratio",
    "precision",
    "residual_dropout",
    "vocab_size",
}


class LavidaConfig(LlavaConfig):
    """The part of `config.json` that decides what LaViDa computes."""

    @classmethod
    def from_folder(cls, folder: Path) -> "LavidaConfig":
        """Read the folder's JSON files."""
        raw, vision = read_config(folder, _USED | _FIXED.keys() | _WITHOUT_EFFECT)
        only_these(raw, _FIXED, "LaViDa")
        choice(raw, "mm_spatial_pool_mode", ("bilinear",), "bilinear")
        return cls(
            **sizes(raw, _SIZES),
            rms_norm_eps=number(raw, "rms_norm_eps", 1e-5),
            rope_theta=number(raw, "rope_theta", 5e5),
            tied_head=bool(raw.get("weight_tying")),
            rope_full_precision=bool(raw.get("rope_full_precision", True)),
            pooled=True,
            **pictures(raw, vision, longest=4096),
        )
