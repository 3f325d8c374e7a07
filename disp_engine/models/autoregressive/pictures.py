"""Pictures to pixels by transformers' own processors, and what a CLIP-like tower makes of them."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.siglip.configuration_siglip import SiglipVisionConfig

from disp_engine.errors import InvalidModelError, SampleError

TOWERS: Mapping[str, Any] = {
    "clip_vision_model": CLIPVisionConfig,
    "siglip_vision_model": SiglipVisionConfig,
}


def build_processor(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A processor with the folder's settings."""
    try:
        return kind(**settings)
    except (ValueError, TypeError) as error:
        raise InvalidModelError(f"preprocessor_config.json: {error}") from error


def processed(processor: Any, image: Image) -> Any:
    """One picture as the processor leaves it."""
    try:
        return processor([image], return_tensors="pt")
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise SampleError(f"The picture cannot be processed: {error}") from error


def check_tower(config: Any) -> None:
    """Refuse what the adapters do not do with a tower's layers and tokens."""
    if not isinstance(config.vision_feature_layer, int):
        raise InvalidModelError("config.json: vision_feature_layer must be one layer.")
    has_class_token = config.vision_config.model_type == "clip_vision_model"
    wanted = "default" if has_class_token else "full"
    if config.vision_feature_select_strategy != wanted:
        raise InvalidModelError(
            f"config.json: vision_feature_select_strategy must be {wanted} for this tower."
        )


def tower_tokens(model: Any, pixels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N P C"]:
    """Patch tokens of each tile after the chosen layer."""
    config, tower = model.config, model.model.vision_tower
    kind = next(tower.parameters())
    layers = tower(pixels.to(kind.device, kind.dtype), output_hidden_states=True).hidden_states
    chosen: Tensor = layers[config.vision_feature_layer]
    return chosen[:, 1:] if config.vision_feature_select_strategy == "default" else chosen


def side(tiles: Float[Tensor, "N P C"]) -> int:
    """Patches along one side of a square tile."""
    return int(torch.tensor(float(tiles.shape[1])).sqrt().round())
