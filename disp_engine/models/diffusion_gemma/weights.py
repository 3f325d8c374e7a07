"""What DiffusionGemma's files must hold, and how much the model takes of a device."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import (
    DiffusionGemmaForBlockDiffusion,
)

from disp_engine.models.inspection import Memory, value_bytes

PROJECTOR = "model.encoder.embed_vision.embedding_projection."

_TEXT = 128
"""Positions of a prompt's text."""


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the files: the encoder's text weights and the head are tied, not kept.

    Of the encoder's text layers only the `layer_scalar` buffers are kept.
    """
    with torch.device("meta"):
        state = DiffusionGemmaForBlockDiffusion(config).state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if not _tied(name)}


def memory(
    config: Any, soft_tokens: int, tensors: Mapping[str, tuple[int, ...]], dtype: str
) -> Memory:
    """Estimate a job's needs for one sample with one picture and one canvas.

    A layer keeps for the way back the float32 inputs of its seven norms, query, key, value and
    output of its attention, and three inner values of its MLP and of each chosen expert.
    """
    b, text = value_bytes(dtype), config.text_config
    projector = math.prod(tensors[f"{PROJECTOR}weight"])
    positions = soft_tokens + 2 + _TEXT + config.canvas_length
    attention = 4 * text.num_attention_heads * text.head_dim
    inner = 3 * (text.intermediate_size + text.top_k_experts * text.moe_intermediate_size)
    layer = 7 * 4 * text.hidden_size + (attention + inner) * b
    return Memory(
        weights=(sum(map(math.prod, tensors.values())) - projector) * b,
        training=4 * 4 * projector,  # parameter, gradient and AdamW's two moments
        activations=positions * text.num_hidden_layers * layer,
        features=soft_tokens * config.vision_config.hidden_size * b,
        positions=positions,
    )


def _tied(name: str) -> bool:
    text = name.startswith("model.encoder.language_model.") and not name.endswith("layer_scalar")
    return text or name == "lm_head.weight"
