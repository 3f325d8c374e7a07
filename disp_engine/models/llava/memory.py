"""What a model in LLaVA's layout takes of a device, by the sizes in its config.

Letters: D width, F inner width of the MLP, N layers, L positions, b bytes a value takes.
"""

import math
from collections.abc import Mapping

from disp_engine.models.inspection import Memory, value_bytes
from disp_engine.models.llava.config import LlavaConfig
from disp_engine.models.llava.weights import PROJECTOR

_TEXT, _RESPONSE = 128, 32
"""Positions of a prompt's text and of one block of its response, as DiSP has them."""


def memory(
    config: LlavaConfig, tensors: Mapping[str, tuple[int, ...]], dtype: str, rows: int = 1
) -> Memory:
    """Estimate a job's needs for one sample with one picture of the largest kind.

    `rows`: how often a sample stands in the batch that its loss is of.
    """
    b = value_bytes(dtype)
    projector = sum(math.prod(s) for name, s in tensors.items() if name.startswith(PROJECTOR))
    others = sum(map(math.prod, tensors.values())) - projector
    positions = largest_picture(config) + _TEXT + _RESPONSE
    tiles = _largest_grid(config) + 1
    return Memory(
        weights=others * b,
        training=4 * 4 * projector,  # parameter, gradient and AdamW's two moments
        activations=rows * positions * kept_by_layers(config, b),
        features=tiles * config.vision.side**2 * config.vision.hidden_size * b,
        positions=positions,
    )


def kept_by_layers(config: LlavaConfig, b: int) -> int:
    """Bytes each position keeps for the way back through frozen layers.

    A layer keeps the inputs of its two norms, query, key, value and output of its attention, and
    of its MLP both slopes of its gate; a frozen linear map keeps nothing of its input.
    """
    d, f = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads
    grouped = config.num_key_value_heads / heads
    attention = d * b * (2 + 2 * grouped)
    return int(config.num_hidden_layers * (2 * d * b + attention + 2 * f * b))


def largest_picture(config: LlavaConfig) -> int:
    """Most visual tokens that one picture in list form can become."""
    side = config.tile_side
    if not config.tiled:
        return side**2 + config.unpadded
    newlines = max(height // config.vision.image_size for _, height in config.image_grid_pinpoints)
    grid = _largest_grid(config) * side**2 + newlines * side * config.unpadded
    if config.anyres_max is not None and config.unpadded:
        kept = math.ceil(config.anyres_max * (1.1 * side) ** 2)
        grid = min(grid, kept + math.ceil(math.sqrt(kept) * newlines))
    return side**2 + grid


def _largest_grid(config: LlavaConfig) -> int:
    if not config.tiled:
        return 0
    area = max(width * height for width, height in config.image_grid_pinpoints)
    return area // config.vision.image_size**2
