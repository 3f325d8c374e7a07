"""What a DiffusionGemma folder says of itself, read as plain JSON and never as code."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaConfig

from disp_engine.errors import InvalidModelError
from disp_engine.models.checkpoint import read_json, refuse_absurd, refuse_remote_code

_FILE = "config.json"
_EITHER = {"architectures", "dtype", "initializer_range", "model_type", "torch_dtype",
           "transformers_version"}  # fmt: skip
_TOP = _EITHER | {
    "audio_config", "audio_token_id", "boa_token_id", "boi_token_id", "canvas_length",
    "eoa_token_id", "eoa_token_index", "eoi_token_id", "eos_token_id", "image_token_id",
    "text_config", "tie_word_embeddings", "video_token_id", "vision_config",
    "vision_soft_tokens_per_image",
}  # fmt: skip
_TEXT = _EITHER | {
    "attention_bias", "attention_dropout", "attention_k_eq_v", "bos_token_id", "eos_token_id",
    "final_logit_softcapping", "global_head_dim", "head_dim", "hidden_activation", "hidden_size",
    "intermediate_size", "layer_types", "max_position_embeddings", "moe_intermediate_size",
    "num_attention_heads", "num_experts", "num_global_key_value_heads", "num_hidden_layers",
    "num_key_value_heads", "pad_token_id", "per_layer_config", "rms_norm_eps", "rope_parameters",
    "sliding_window", "tie_word_embeddings", "top_k_experts", "use_bidirectional_attention",
    "use_cache", "vocab_size",
}  # fmt: skip
_VISION = _EITHER | {
    "attention_bias", "attention_dropout", "head_dim", "hidden_activation", "hidden_size",
    "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "patch_size", "pooling_kernel_size", "position_embedding_size",
    "rms_norm_eps", "rope_parameters", "standardize", "use_clipped_linears",
}  # fmt: skip
# Gemma 4 options that DiffusionGemma lacks: known, but only with the value that switches them off.
_SWITCHED_OFF: Mapping[str, tuple[Any, ...]] = {
    "enable_moe_block": (None, True),
    "hidden_size_per_layer_input": (None, 0),
    "num_kv_shared_layers": (None, 0),
    "use_double_wide_mlp": (None, False),
    "vocab_size_per_layer_input": (None, 0),
}
_DTYPES = ("float64", "float32", "float16", "bfloat16")
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "num_key_value_heads", "head_dim")  # fmt: skip
_GENERATION = {
    "_from_model_config", "bos_token_id", "cache_implementation", "confidence_threshold",
    "eos_token_id", "max_denoising_steps", "max_length", "max_new_tokens", "pad_token_id",
    "return_dict_in_generate", "sampler_config", "stability_threshold", "t_max", "t_min",
    "transformers_version",
}  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """The published sampler's settings, those of transformers where the folder has none.

    Of `steps` denoising steps of a canvas the temperature falls linearly from `t_max` to `t_min`;
    the lowest-entropy tokens are accepted up to `entropy_bound` nats; a canvas is done when its
    argmax was stable for `stability` steps and its mean entropy is below `confidence` nats.
    """

    ends: tuple[int, ...]
    steps: int = 48
    t_min: float = 0.4
    t_max: float = 0.8
    entropy_bound: float = 0.1
    stability: int = 1
    confidence: float = 0.005


@dataclass(frozen=True)
class GemmaFolder:
    """The part of the folder that decides what DiffusionGemma computes."""

    config: Any
    sampling: Sampling
    soft_tokens: int = 280
    files: tuple[Path, ...] = field(default=(), repr=False)
    """The files read, for the revision."""

    @classmethod
    def read(cls, folder: Path) -> "GemmaFolder":
        """Read `config.json` and, where they are there, the files of sampler and pictures."""
        raw = read_json(folder / _FILE)
        _check(raw)
        try:
            config = DiffusionGemmaConfig(**_without(raw, set(_SWITCHED_OFF)))
        except Exception as error:  # the library judges each key by rules of its own
            raise InvalidModelError(f"{_FILE}: {error}") from error
        names = (_FILE, "generation_config.json", "processor_config.json", "tokenizer.json")
        return cls(
            config,
            _sampling(folder, config),
            _soft_tokens(folder, raw),
            tuple(folder / name for name in names if (folder / name).is_file()),
        )


def _only_known(raw: Mapping[str, Any], known: Set[str], file: str) -> None:
    """Refuse keys that ask for code, and keys of which nobody here knows what they change."""
    refuse_remote_code(raw, file)
    for key in raw:
        if key not in known:
            raise InvalidModelError(f"{file}: key {key} is unknown; remove it if it has no effect.")


def _check(raw: Mapping[str, Any]) -> None:
    _only_known(raw, _TOP, _FILE)
    refuse_absurd(raw, _FILE)
    text, vision = _part(raw, "text_config"), _part(raw, "vision_config")
    _only_known(text, _TEXT | set(_SWITCHED_OFF), f"{_FILE}: text_config")
    _only_known(vision, _VISION, f"{_FILE}: vision_config")
    for key, allowed in _SWITCHED_OFF.items():
        if text.get(key) not in allowed:
            raise InvalidModelError(f"{_FILE}: {key} is not supported in DiffusionGemma.")
    if raw.get("audio_config") is not None:
        raise InvalidModelError(f"{_FILE}: audio_config is not supported in DiffusionGemma.")
    if raw.get("tie_word_embeddings", True) is not True:
        raise InvalidModelError(f"{_FILE}: tie_word_embeddings must be true.")
    if text.get("use_bidirectional_attention") != "vision":
        raise InvalidModelError(f"{_FILE}: use_bidirectional_attention must be vision.")
    if vision.get("model_type", "gemma4_vision") != "gemma4_vision":
        raise InvalidModelError(f"{_FILE}: vision_config must be of model_type gemma4_vision.")
    if vision.get("pooling_kernel_size") == 1:  # transformers would then keep padding, not tokens
        raise InvalidModelError(f"{_FILE}: pooling_kernel_size must be larger than 1.")
    for part in (raw, text, vision):
        for key in ("dtype", "torch_dtype"):
            if part.get(key) not in (None, *_DTYPES):
                names = ", ".join(_DTYPES)
                raise InvalidModelError(f"{_FILE}: {key} {part[key]!r} is not one of {names}.")
    for part in (text, vision):
        for key in _SIZES:
            _positive(part, key)
    for key in ("vocab_size", "num_experts", "top_k_experts", "moe_intermediate_size"):
        _positive(text, key)
    if text["top_k_experts"] > text["num_experts"]:
        raise InvalidModelError(f"{_FILE}: top_k_experts must not exceed num_experts.")
    for key in ("canvas_length", "vision_soft_tokens_per_image"):
        _positive({key: 1, **raw}, key)


def _part(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = raw.get(key)
    if not isinstance(part, dict):
        raise InvalidModelError(f"{_FILE}: {key} must be an object.")
    return part


def _positive(raw: Mapping[str, Any], key: str) -> None:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidModelError(f"{_FILE}: {key} must be a positive integer, not {value!r}.")


def _without(raw: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """The config without keys that transformers would not understand, at both levels."""
    dropped = keys | {"audio_config", "vision_soft_tokens_per_image"}
    top = {key: value for key, value in raw.items() if key not in dropped}
    text = {key: value for key, value in raw["text_config"].items() if key not in dropped}
    return top | {"text_config": text}


def _sampling(folder: Path, config: Any) -> Sampling:
    path = folder / "generation_config.json"
    raw = read_json(path) if path.is_file() else {}
    _only_known(raw, _GENERATION, path.name)
    inner = raw.get("sampler_config") or {}
    _only_known(inner, {"_cls_name", "entropy_bound"}, f"{path.name}: sampler_config")
    if inner.get("_cls_name", "EntropyBoundSamplerConfig") != "EntropyBoundSamplerConfig":
        raise InvalidModelError(f"{path.name}: sampler {inner['_cls_name']!r} is not supported.")
    given = {
        "steps": raw.get("max_denoising_steps"),
        "t_min": raw.get("t_min"),
        "t_max": raw.get("t_max"),
        "entropy_bound": inner.get("entropy_bound"),
        "stability": raw.get("stability_threshold"),
        "confidence": raw.get("confidence_threshold"),
    }
    for key, value in given.items():
        kind = int if key in ("steps", "stability") else int | float
        if value is not None and (not isinstance(value, kind) or value < 0):
            raise InvalidModelError(f"{path.name}: {key} cannot be {value!r}.")
    ends = raw.get("eos_token_id")
    ends = config.text_config.eos_token_id if ends is None else ends
    ends = tuple(ends) if isinstance(ends, list) else (ends,)
    return Sampling(ends, **{key: value for key, value in given.items() if value is not None})


def _soft_tokens(folder: Path, raw: Mapping[str, Any]) -> int:
    """The largest number of visual tokens of one picture."""
    path = folder / "processor_config.json"
    told = read_json(path).get("image_processor") or {} if path.is_file() else {}
    found: int = told.get("max_soft_tokens") or raw.get("vision_soft_tokens_per_image") or 280
    return found
