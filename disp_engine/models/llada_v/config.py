"""What a LLaDA-V folder says of itself, read as plain JSON and never as code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import only_known, read_json

_USED = {
    "architectures",
    "hidden_act",
    "hidden_size",
    "image_aspect_ratio",
    "image_grid_pinpoints",
    "intermediate_size",
    "mm_hidden_size",
    "mm_patch_merge_type",
    "mm_projector_type",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "head_dim",
    "tokenizer_model_max_length",
    "vocab_size",
}
# Keys that official training, or transformers when it saves, writes and that change nothing here.
_WITHOUT_EFFECT = {
    "_name_or_path",
    "add_cross_attention",
    "add_faster_video",
    "attention_dropout",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "delay_load",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "faster_token_stride",
    "finetuning_task",
    "force_sample",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "freeze_mm_mlp_adapter",
    "freeze_mm_vision_resampler",
    "id2label",
    "image_crop_resolution",
    "image_mean",
    "image_split_resolution",
    "image_std",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "max_position_embeddings",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "pos_skipping_range",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "tokenizer_padding_side",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "tune_mm_mlp_adapter",
    "tune_mm_vision_resampler",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "use_conversation_mask",
    "use_mm_proj",
    "use_pos_skipping",
    "vision_tower_pretrained",
}
_VISION_USED = {
    "hidden_act",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "layer_norm_eps",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
}
# `_attn_implementation_autoset` is a flag that transformers 4.4x wrote into every sub-config.
_VISION_WITHOUT_EFFECT = _WITHOUT_EFFECT | {
    "_attn_implementation_autoset",
    "architectures",
    "model_type",
    "tie_word_embeddings",
    "vision_use_head",
}


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the SigLIP tower; by default so400m/14 at 384 px.

    `num_hidden_layers` counts the full tower, of which the model runs all but the last layer.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 384
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6

    @property
    def side(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class LladaVConfig:
    """The part of `config.json` that decides what LLaDA-V computes."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 5e5
    hidden_act: str = "silu"
    image_aspect_ratio: str = "square"
    image_grid_pinpoints: tuple[tuple[int, int], ...] = ()
    mm_patch_merge_type: str = "flat"
    mm_projector_type: str = "mlp2x_gelu"
    tokenizer_model_max_length: int = 8192
    vision: VisionConfig = field(default_factory=VisionConfig)

    @property
    def anyres_max(self) -> int | None:
        """Largest picture in tiles, when the aspect is `anyres_max_N`."""
        found = re.fullmatch(r"anyres_max_(\d+)", self.image_aspect_ratio)
        return int(found.group(1)) if found else None

    @property
    def tiled(self) -> bool:
        """Whether a picture is cut into tiles."""
        return self.image_aspect_ratio == "anyres" or self.anyres_max is not None

    @property
    def unpadded(self) -> bool:
        """Whether padding is removed and newline tokens are added when tiles are merged."""
        return "unpad" in self.mm_patch_merge_type

    @classmethod
    def from_folder(cls, folder: Path) -> "LladaVConfig":
        """Read `config.json` and, where the folder has one, `vision_config.json`."""
        raw = read_json(folder / "config.json")
        only_known(raw, _USED | _WITHOUT_EFFECT | _prefixed(raw), "config.json")
        vision = VisionConfig()
        if (folder / "vision_config.json").is_file():
            vision = _vision(read_json(folder / "vision_config.json"))
        return _config(raw, vision)


def _prefixed(raw: Mapping[str, Any]) -> set[str]:
    """LLaVA's own keys, of which only those in `_USED` decide anything."""
    return {key for key in raw if key.startswith("mm_")}


def _integer(raw: Mapping[str, Any], key: str, file: str = "config.json") -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidModelError(f"{file}: {key} must be a positive integer, not {value!r}.")
    return value


def _number(raw: Mapping[str, Any], key: str, default: float, file: str = "config.json") -> float:
    value = raw.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise InvalidModelError(f"{file}: {key} must be a positive number, not {value!r}.")
    return float(value)


def _choice(raw: Mapping[str, Any], key: str, choices: tuple[str, ...], default: str) -> str:
    value = raw.get(key)
    if value is None:
        return default
    if value not in choices:
        raise InvalidModelError(f"config.json: {key} {value!r} is not one of {', '.join(choices)}.")
    return str(value)


def _aspect(raw: Mapping[str, Any]) -> str:
    value = raw.get("image_aspect_ratio")
    if isinstance(value, str) and re.fullmatch(r"anyres_max_[1-9]\d*", value):
        return value
    return _choice(raw, "image_aspect_ratio", ("anyres", "pad", "square"), "square")


def _pinpoints(raw: Mapping[str, Any], tile: int) -> tuple[tuple[int, int], ...]:
    """Resolutions as (width, height); `(1x1),...,(6x6)` stands for all grids between the two."""
    value = raw.get("image_grid_pinpoints") or []
    if isinstance(value, str):
        ends = [(int(a), int(b)) for a, b in re.findall(r"\((\d+)x(\d+)\)", value)]
        if not ends:
            raise InvalidModelError(f"config.json: image_grid_pinpoints {value!r} names no grid.")
        (a0, b0), (a1, b1) = ends[0], ends[-1]
        return tuple((a * tile, b * tile) for a in range(a0, a1 + 1) for b in range(b0, b1 + 1))
    points = tuple(tuple(point) for point in value)
    if any(len(p) != 2 or any(n < tile or n % tile for n in p) for p in points):
        raise InvalidModelError(
            f"config.json: image_grid_pinpoints must be pairs of multiples of {tile}."
        )
    return tuple((int(width), int(height)) for width, height in points)


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    for key in ("tie_word_embeddings", "attention_bias", "mlp_bias", "rope_scaling"):
        if raw.get(key):
            raise InvalidModelError(f"config.json: {key} is not supported in LLaDA-V.")


def _config(raw: Mapping[str, Any], vision: VisionConfig) -> LladaVConfig:
    _refuse_unsupported(raw)
    heads = _integer(raw, "num_attention_heads")
    config = LladaVConfig(
        hidden_size=_integer(raw, "hidden_size"),
        intermediate_size=_integer(raw, "intermediate_size"),
        num_hidden_layers=_integer(raw, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=_integer({"num_key_value_heads": heads, **raw}, "num_key_value_heads"),
        vocab_size=_integer(raw, "vocab_size"),
        rms_norm_eps=_number(raw, "rms_norm_eps", 1e-5),
        rope_theta=_number(raw, "rope_theta", 5e5),
        hidden_act=_choice(raw, "hidden_act", ("silu",), "silu"),
        image_aspect_ratio=_aspect(raw),
        image_grid_pinpoints=_pinpoints(raw, vision.image_size),
        mm_patch_merge_type=_choice(
            raw, "mm_patch_merge_type", ("flat", "spatial", "spatial_unpad"), "flat"
        ),
        mm_projector_type=_choice(raw, "mm_projector_type", ("mlp2x_gelu",), "mlp2x_gelu"),
        tokenizer_model_max_length=_integer(
            {"tokenizer_model_max_length": 8192, **raw}, "tokenizer_model_max_length"
        ),
        vision=vision,
    )
    _refuse_contradictions(raw, config)
    return config


def _refuse_contradictions(raw: Mapping[str, Any], config: LladaVConfig) -> None:
    if config.hidden_size % config.num_attention_heads:
        raise InvalidModelError("config.json: num_attention_heads must divide hidden_size.")
    if config.num_attention_heads % config.num_key_value_heads:
        raise InvalidModelError("config.json: num_key_value_heads must divide num_attention_heads.")
    if raw.get("head_dim") not in (None, config.hidden_size // config.num_attention_heads):
        raise InvalidModelError("config.json: head_dim must be hidden_size / num_attention_heads.")
    if config.tiled and not config.image_grid_pinpoints:
        raise InvalidModelError("config.json: image_grid_pinpoints is missing for anyres.")
    if raw.get("mm_hidden_size") not in (None, config.vision.hidden_size):
        raise InvalidModelError(
            f"config.json: mm_hidden_size {raw['mm_hidden_size']} is not the tower's "
            f"{config.vision.hidden_size}; a tower other than so400m needs vision_config.json."
        )


def _vision(raw: Mapping[str, Any]) -> VisionConfig:
    file = "vision_config.json"
    only_known(raw, _VISION_USED | _VISION_WITHOUT_EFFECT | _prefixed(raw), file)
    defaults = VisionConfig()
    sizes = {
        key: _integer({key: getattr(defaults, key), **raw}, key, file)
        for key in sorted(_VISION_USED - {"hidden_act", "layer_norm_eps"})
    }
    activation = raw.get("hidden_act", defaults.hidden_act)
    if activation not in {"gelu_pytorch_tanh", "gelu"}:
        raise InvalidModelError(f"{file}: hidden_act {activation!r} is not supported.")
    if sizes["num_hidden_layers"] < 2 or sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise InvalidModelError(f"{file}: the tower needs two layers and heads that divide it.")
    epsilon = _number(raw, "layer_norm_eps", defaults.layer_norm_eps, file)
    return VisionConfig(hidden_act=activation, layer_norm_eps=epsilon, **sizes)
