"""What a folder in LLaVA's layout says of itself, read as plain JSON and never as code."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import (
    LARGEST_SIZE,
    MOST_LAYERS,
    read_json,
    refuse_remote_code,
)

LARGEST_TILE = 4096
"""Pixels of a tile's side."""
MOST_TILES = 64
"""Tiles along one side of a picture."""

# Keys that official training, or transformers when it saves, writes and that change nothing here.
WITHOUT_EFFECT = {
    "_name_or_path",
    "add_cross_attention",
    "add_faster_video",
    "add_time_instruction",
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
    "frames_upbound",
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
_VISION_WITHOUT_EFFECT = WITHOUT_EFFECT | {
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


C = TypeVar("C", bound="LlavaConfig")


@dataclass(frozen=True)
class LlavaConfig:
    """What decides what a model computes; fields bear the names that LLaDA-V's file has.

    `pooled` halves the sides of every tile's grid of tokens after the projector and
    `rope_full_precision` rotates in float32 whatever the weights are; both are LaViDa's. A
    `tied_head` is the table of token embeddings once more.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 5e5
    rope_full_precision: bool = False
    tied_head: bool = False
    image_aspect_ratio: str = "square"
    image_grid_pinpoints: tuple[tuple[int, int], ...] = ()
    mm_patch_merge_type: str = "flat"
    pooled: bool = False
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

    @property
    def tile_side(self) -> int:
        """Visual tokens along one side of a tile of a picture given in list form."""
        side = self.vision.side
        return math.ceil(side / 2) if self.pooled else side

    @classmethod
    def from_folder(cls: type[C], folder: Path) -> C:
        """Read the folder's JSON files as the family has them."""
        raise NotImplementedError(f"{cls.__name__} reads no folder.")


def read_config(folder: Path, known: set[str]) -> tuple[dict[str, Any], VisionConfig]:
    """Read `config.json` and, where the folder has one, `vision_config.json`."""
    raw = read_json(folder / "config.json")
    only_known(raw, known | WITHOUT_EFFECT, "config.json")
    choice(raw, "mm_projector_type", ("mlp2x_gelu",), "mlp2x_gelu")
    for key in ("mm_resampler_type", "mm_use_im_start_end"):
        if raw.get(key):  # another way from pictures to tokens than the projector alone
            raise InvalidModelError(f"config.json: {key} {raw[key]!r} is not supported.")
    if (folder / "vision_config.json").is_file():
        return raw, _vision(read_json(folder / "vision_config.json"))
    return raw, VisionConfig()


def only_known(raw: Mapping[str, Any], known: set[str], file: str) -> None:
    """Refuse a key that might ask for something that is not done here."""
    refuse_remote_code(raw, file)
    for key in raw:
        if key not in known and not key.startswith("mm_"):
            raise InvalidModelError(f"{file}: key {key} is unknown; remove it if it has no effect.")


def only_these(raw: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]], family: str) -> None:
    """Refuse a setting of the language model that its adapter does not have; absent is fine."""
    for key, values in allowed.items():
        if key in raw and raw[key] not in values:
            raise InvalidModelError(
                f"config.json: {key} {raw[key]!r} is not supported in {family}; it must be "
                f"{' or '.join(map(repr, values))}."
            )


def pictures(raw: Mapping[str, Any], vision: VisionConfig, longest: int) -> dict[str, Any]:
    """The fields that say how pictures become visual tokens, the same in each family."""
    aspect = _aspect(raw)
    tiled = aspect.startswith("anyres")  # any other aspect leaves the pinpoints unread
    fields: dict[str, Any] = {
        "image_aspect_ratio": aspect,
        "image_grid_pinpoints": _pinpoints(raw, vision.image_size) if tiled else (),
        "mm_patch_merge_type": choice(
            raw, "mm_patch_merge_type", ("flat", "spatial", "spatial_unpad"), "flat"
        ),
        "tokenizer_model_max_length": integer(
            {"tokenizer_model_max_length": longest, **raw}, "tokenizer_model_max_length"
        ),
        "vision": vision,
    }
    if tiled and not fields["image_grid_pinpoints"]:
        raise InvalidModelError("config.json: image_grid_pinpoints is missing for anyres.")
    if raw.get("mm_hidden_size") not in (None, vision.hidden_size):
        raise InvalidModelError(
            f"config.json: mm_hidden_size {raw['mm_hidden_size']} is not the tower's "
            f"{vision.hidden_size}; a tower other than so400m needs vision_config.json."
        )
    return fields


def sizes(raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The language model's sizes; `names` are the file's keys for our fields."""
    heads, groups = names["num_attention_heads"], names["num_key_value_heads"]
    filled = dict(raw)
    if filled.get(groups) is None:
        filled[groups] = raw.get(heads)
    found = {
        field: integer(filled, key, most=MOST_LAYERS if "layers" in field else LARGEST_SIZE)
        for field, key in names.items()
    }
    if found["hidden_size"] % found["num_attention_heads"]:
        raise InvalidModelError(f"config.json: {heads} must divide {names['hidden_size']}.")
    if found["num_attention_heads"] % found["num_key_value_heads"]:
        raise InvalidModelError(f"config.json: {groups} must divide {heads}.")
    return found


def integer(
    raw: Mapping[str, Any], key: str, file: str = "config.json", most: int = LARGEST_SIZE
) -> int:
    """A positive integer of at most `most`, or say which key is none.

    Even without weights a model of absurd sizes would take hours and all memory to plan.
    """
    value = raw.get(key)
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidModelError(
            f"{file}: {key} must be a positive integer up to {most}, not {value!r}."
        )
    return value


def number(raw: Mapping[str, Any], key: str, default: float, file: str = "config.json") -> float:
    """A positive number, or say which key is none."""
    value = raw.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise InvalidModelError(f"{file}: {key} must be a positive number, not {value!r}.")
    return float(value)


def choice(raw: Mapping[str, Any], key: str, choices: tuple[str, ...], default: str) -> str:
    """One of a few words, or say which there are."""
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
    return choice(raw, "image_aspect_ratio", ("anyres", "pad", "square"), "square")


def _pinpoints(raw: Mapping[str, Any], tile: int) -> tuple[tuple[int, int], ...]:
    """Resolutions as (width, height); `(1x1),...,(6x6)` stands for all grids between the two.

    A list may be written as text, `[(384, 768), ...]`, as older LLaVA files have it.
    """
    value = raw.get("image_grid_pinpoints") or []
    if isinstance(value, str) and "x" not in value:
        value = _listed(value)
    if isinstance(value, str):
        ends = [tuple(map(_count, pair)) for pair in re.findall(r"\((\d+)x(\d+)\)", value)]
        if not ends or not all(1 <= count <= MOST_TILES for pair in ends for count in pair):
            raise InvalidModelError(
                f"config.json: image_grid_pinpoints {value!r} names no grid of at most "
                f"{MOST_TILES} tiles a side."
            )
        (a0, b0), (a1, b1) = ends[0], ends[-1]
        return tuple((a * tile, b * tile) for a in range(a0, a1 + 1) for b in range(b0, b1 + 1))
    pairs = isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value)
    if not pairs or not all(_is_side(n, tile) for pair in value for n in pair):
        raise InvalidModelError(
            f"config.json: image_grid_pinpoints must be pairs of multiples of {tile}, up to "
            f"{MOST_TILES} times."
        )
    return tuple((width, height) for width, height in value)


def _listed(text: str) -> Any:
    """A list of pairs written as text; the text itself where it is none."""
    try:
        return json.loads(text.replace("(", "[").replace(")", "]"))
    except (ValueError, RecursionError):
        return text


def _count(digits: str) -> int:
    """The number, or one that is too large where it is long enough to take time."""
    return int(digits[:9])


def _is_side(value: object, tile: int) -> bool:
    return type(value) is int and value % tile == 0 and 1 <= value // tile <= MOST_TILES


def _vision(raw: Mapping[str, Any]) -> VisionConfig:
    file = "vision_config.json"
    only_known(raw, _VISION_USED | _VISION_WITHOUT_EFFECT, file)
    defaults = VisionConfig()
    most = {"num_hidden_layers": MOST_LAYERS, "image_size": LARGEST_TILE}
    sizes = {
        key: integer({key: getattr(defaults, key), **raw}, key, file, most.get(key, LARGEST_SIZE))
        for key in sorted(_VISION_USED - {"hidden_act", "layer_norm_eps"})
    }
    activation = raw.get("hidden_act", defaults.hidden_act)
    if activation not in {"gelu_pytorch_tanh", "gelu"}:
        raise InvalidModelError(f"{file}: hidden_act {activation!r} is not supported.")
    if sizes["num_hidden_layers"] < 2 or sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise InvalidModelError(f"{file}: the tower needs two layers and heads that divide it.")
    epsilon = number(raw, "layer_norm_eps", defaults.layer_norm_eps, file)
    return VisionConfig(hidden_act=activation, layer_norm_eps=epsilon, **sizes)
