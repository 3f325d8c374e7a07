"""What a folder in transformers' format says of itself, read as plain JSON and never as code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import read_json, refuse_absurd, refuse_remote_code
from disp_engine.models.llava.config import WITHOUT_EFFECT

_FILE = "config.json"
_EVERYWHERE = WITHOUT_EFFECT | {
    "_attn_implementation_autoset",
    "architectures",
    "ignore_index",
    "layer_types",
    "model_type",
    "output_attentions",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "use_image_newline_parameter",
    "vision_token_id",
    "vocab_size",
}
_LABELS = {
    "_valid_processor_keys", "aspect_ratio_setting", "data_format", "device", "disable_grouping",
    "feature_extractor_type", "image_processor_type", "image_seq_length", "input_data_format",
    "processor_class", "return_tensors",
}  # fmt: skip
"""Keys that a picture processor is not given."""
_PICTURES = _LABELS | {
    "crop_size", "crop_to_patches", "default_to_square", "do_center_crop", "do_convert_rgb",
    "do_normalize", "do_pad", "do_rescale", "do_resize", "image_grid_pinpoints", "image_mean",
    "image_std", "max_patches", "max_pixels", "merge_size", "min_patches", "min_pixels", "pad_size",
    "patch_size", "resample", "rescale_factor", "size", "temporal_patch_size",
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """The part of a folder that decides what a model computes; `pictures` is the processor's."""

    config: Any
    pictures: Mapping[str, Any]
    ends: tuple[int, ...]
    files: tuple[Path, ...]
    """The files read, for the revision."""


@dataclass(frozen=True)
class ConfigKinds:
    """Config classes a family knows: its own, and those of its parts by `model_type`.

    The first of each part is what an absent `model_type` means. `flat`: the text model's keys may
    stand beside the family's own. `unused` keys of the tower change nothing.
    """

    own: Any
    texts: Mapping[str, Any]
    towers: Mapping[str, Any]
    flat: bool = False
    unused: frozenset[str] = frozenset()


def read_facts(folder: Path, kinds: ConfigKinds) -> Facts:
    """Read a folder whose configs are of known kinds and hold known keys only."""
    raw = read_json(folder / _FILE)
    refuse_remote_code(raw, _FILE)
    refuse_absurd(raw, _FILE)
    known = _fields(kinds.own)
    if kinds.flat and not isinstance(raw.get("text_config"), dict):
        known |= _fields(next(iter(kinds.texts.values())))
    _only_known(raw, known, _FILE)
    _check_part(raw, "text_config", kinds.texts, frozenset())
    _check_part(raw, "vision_config", kinds.towers, kinds.unused)
    try:
        config = kinds.own(**raw)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidModelError(f"{_FILE}: {error}") from error
    _refuse_windows(config.text_config)
    names = (_FILE, "generation_config.json", "preprocessor_config.json", "processor_config.json")
    files = tuple(folder / n for n in (*names, "tokenizer.json") if (folder / n).is_file())
    return Facts(config, _pictures(folder), _ends(folder, config), files)


def _check_part(
    raw: Mapping[str, Any], part: str, kinds: Mapping[str, Any], unused: frozenset[str]
) -> None:
    told = raw.get(part)
    if told is None:
        return
    if not isinstance(told, dict):
        raise InvalidModelError(f"{_FILE}: {part} must be an object.")
    named = told.get("model_type", next(iter(kinds)))
    if named not in kinds:
        raise InvalidModelError(
            f"{_FILE}: {part}: model_type {named!r} must be {' or '.join(kinds)}."
        )
    _only_known(told, _fields(kinds[named]) | unused, f"{_FILE}: {part}")


def _only_known(raw: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse keys of which transformers' class knows nothing: they may ask for anything."""
    for key in raw:
        if key not in known | _EVERYWHERE:
            raise InvalidModelError(
                f"{where}: key {key} is unknown; remove it if it has no effect."
            )


def _fields(kind: Any) -> set[str]:
    """Settings that a config class adds to those of every config, and their other names."""
    own = kind.__mro__[: kind.__mro__.index(PreTrainedConfig)]
    named = {name for part in own for name in vars(part).get("__annotations__", {})}
    return named | set(kind.attribute_map)


def _refuse_windows(text: Any) -> None:
    kinds = getattr(text, "layer_types", None) or ["full_attention"]
    if getattr(text, "sliding_window", None) is not None or set(kinds) != {"full_attention"}:
        raise InvalidModelError(f"{_FILE}: text_config: sliding windows are not supported.")


def _pictures(folder: Path) -> dict[str, Any]:
    """How pictures are resized and normalised: the file of its own, else the processor's part."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        raw = read_json(path)
    else:
        path = folder / "processor_config.json"
        raw = read_json(path).get("image_processor") or {}
    refuse_remote_code(raw, path.name)
    if unknown := sorted(set(raw) - _PICTURES):
        raise InvalidModelError(f"{path.name}: key {unknown[0]} is unknown; remove it if unused.")
    return {key: value for key, value in raw.items() if key not in _LABELS and value is not None}


def _ends(folder: Path, config: Any) -> tuple[int, ...]:
    """The ids that end an answer."""
    path = folder / "generation_config.json"
    told = read_json(path).get("eos_token_id") if path.is_file() else None
    told = config.text_config.eos_token_id if told is None else told
    ends = tuple(told) if isinstance(told, list) else (told,)
    if not all(type(end) is int for end in ends):
        raise InvalidModelError("config.json: text_config: eos_token_id is missing.")
    return ends
