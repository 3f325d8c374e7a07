"""Stage 1 of DiffusionGemma's checkpoint: a small Gemma 4 tower, supervised as the other one is."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig
from transformers.models.gemma4.modeling_gemma4 import Gemma4VisionModel

from disp_engine.builtin.recipe.pictures import GRID, PATCH

POOLED = 2
"""Patches along each side of what becomes one visual token; the family's tower must pool."""
SIDE = PATCH // POOLED
"""Pixels along one side of a patch, so that a visual token shows as much as in other families."""


class PatchTower(nn.Module):
    """Gemma 4's tower over the world's pictures, in the form in which the other tower takes them.

    Features are given without the pooler's last factor sqrt(C): the norm in front of the projector
    takes it out again, and the supervisor weighs features of the scale that layers have.
    """

    def __init__(self, config: Gemma4VisionConfig) -> None:
        super().__init__()
        self.vision = Gemma4VisionModel(config)

    def forward(self, pixels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N P C"]:
        """Features of each visual token; `pixels` lie in [-1, 1]."""
        positions = patch_positions().to(pixels.device).expand(len(pixels), -1, -1)
        features: Tensor = self.vision(
            pixel_values=patches(pixels), pixel_position_ids=positions
        ).last_hidden_state
        rows = features.reshape(len(pixels), -1, features.shape[-1])
        return rows / math.sqrt(features.shape[-1])


def patches(pixels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N Q F"]:
    """Cut pictures into flat patches in [0, 1], row by row, colours last."""
    tiles = pixels.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE)
    return (tiles.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2) + 1) / 2


def patch_positions() -> Int[Tensor, "Q 2"]:
    """Column and row of each patch."""
    along = torch.arange(GRID * POOLED)
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)
