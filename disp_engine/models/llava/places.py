"""Where on its picture each visual token looks; the same order as `visual_tokens` gives."""

import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.models.llava.config import LlavaConfig
from disp_engine.models.llava.images import merged_grid

NOWHERE = torch.full((4,), torch.nan)


def token_boxes(
    size: tuple[int, int], tiles: int, config: LlavaConfig, *, newline: bool, as_list: bool
) -> Float[Tensor, "T 4"]:
    """Left, top, right and bottom of each token's part of the picture, as shares of its size.

    A token that is of no part of the picture (a newline), or of a tile that is not laid out, is
    nowhere: nan.
    """
    pooled = as_list and config.pooled
    side = config.tile_side if pooled else config.vision.side
    first = _cells(side, side)
    if not config.tiled and config.image_aspect_ratio == "pad":
        first = _without_padding(first, size)
    if tiles == 1 or not as_list or config.mm_patch_merge_type == "flat":
        ends = int(as_list and newline and config.mm_patch_merge_type != "flat")
        rest = NOWHERE.expand((tiles - 1) * side**2 + ends, 4)
        return torch.cat([first, rest])
    if not newline:
        return torch.cat([first, NOWHERE.expand((tiles - 1) * side**2, 4)])
    blank = torch.zeros(tiles - 1, side**2, 1)
    _, high, wide = merged_grid(blank, size, config).shape
    rows = _cells(high, wide).view(high, wide, 4)
    ended = torch.cat([rows, NOWHERE.expand(high, 1, 4)], dim=1)
    return torch.cat([first, ended.flatten(0, 1)])


def _cells(high: int, wide: int) -> Float[Tensor, "T 4"]:
    y, x = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
    boxes = torch.stack([x / wide, y / high, (x + 1) / wide, (y + 1) / high], dim=-1)
    return boxes.flatten(0, 1).float()


def _without_padding(boxes: Float[Tensor, "T 4"], size: tuple[int, int]) -> Float[Tensor, "T 4"]:
    """Shares of the padded square as shares of the picture in its middle."""
    scale = torch.tensor([max(size) / size[0], max(size) / size[1]]).repeat(2)
    return (boxes - 0.5) * scale + 0.5
