"""What DiffusionGemma's files must hold, and how much the model takes of a device."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import (
    DiffusionGemmaForBlockDiffusion,
)

from disp_engine.errors import InvalidModelError
from disp_engine.models.diffusion_gemma.hiding import GemmaSettings
from disp_engine.models.inspection import Memory, value_bytes

PROJECTOR = "model.encoder.embed_vision.embedding_projection."

_TEXT = 128
"""Positions of a prompt's text."""


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the files: the encoder's text weights and the head are tied, not kept.

    Of the encoder's text layers only the `layer_scalar` buffers are kept.
    """
    try:
        with torch.device("meta"):
            state = DiffusionGemmaForBlockDiffusion(config).state_dict()
    except Exception as error:  # sizes of which each is allowed, but that do not fit one another
        raise InvalidModelError(f"config.json: no model has these sizes: {error}") from error
    return {name: tuple(value.shape) for name, value in state.items() if not _tied(name)}


def memory(
    config: Any, soft_tokens: int, tensors: Mapping[str, tuple[int, ...]], dtype: str
) -> Memory:
    """Estimate a job's needs for one sample with one picture; most is kept to score it.

    What is kept for the logits of its canvases comes on top.
    """
    b, text = value_bytes(dtype), config.text_config
    projector = math.prod(tensors[f"{PROJECTOR}weight"])
    canvases = GemmaSettings().canvases
    positions = soft_tokens + 2 + _TEXT + canvases * config.canvas_length
    layers = sum(_kept_by(layer, b) for layer in text.per_layer_config)
    return Memory(
        weights=(sum(map(math.prod, tensors.values())) - projector) * b,
        training=4 * 4 * projector,  # parameter, gradient and AdamW's two moments
        activations=positions * layers,
        features=soft_tokens * config.vision_config.hidden_size * b,
        positions=positions,
    )


def _kept_by(layer: Any, b: int) -> int:
    """Bytes each position keeps in a layer for the way back.

    The float32 inputs of its seven norms, query, key, value and output of its attention, and three
    inner values of its MLP and of each chosen expert.
    """
    attention = 2 * (layer.num_attention_heads + layer.num_key_value_heads) * layer.head_dim
    inner = 3 * (layer.intermediate_size + layer.top_k_experts * layer.moe_intermediate_size)
    return int(7 * 4 * layer.hidden_size + (attention + inner) * b)


def _tied(name: str) -> bool:
    text = name.startswith("model.encoder.language_model.") and not name.endswith("layer_scalar")
    return text or name == "lm_head.weight"
