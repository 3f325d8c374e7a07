"""The tiles of a picture by the places of their visual tokens, in the order of `visual_tokens`.

Neighbours in a tile are neighbours in the picture. No tile reaches into another one, and the
newlines that end rows are in none.
"""

from itertools import accumulate, groupby

import torch
from jaxtyping import Int
from torch import Tensor

from disp_engine.models.llava.config import LlavaConfig
from disp_engine.models.llava.images import laid_grid, merged_grid, unpadded_grid
from disp_engine.records import Grid


def token_grids(
    size: tuple[int, int], tiles: int, config: LlavaConfig, *, newline: bool, as_list: bool
) -> tuple[Grid, ...]:
    """The whole picture first, then what is left of each crop.

    Crops that were brought down to a smaller size have no borders any more: they are one tile.
    """
    side = config.tile_side if as_list and config.pooled else config.vision.side
    apart = tuple(Grid(number * side**2, side, side, side) for number in range(tiles))
    if tiles == 1 or not as_list or config.mm_patch_merge_type == "flat":
        return apart
    numbers = torch.arange((tiles - 1) * side**2).view(tiles - 1, side**2, 1)
    if not newline:
        laid = laid_grid(numbers, size, config)[0]
        return (apart[0], *_crops(laid // side**2, side**2, laid.shape[1]))
    left = unpadded_grid(numbers, size, config)[0]
    _, high, wide = merged_grid(numbers.float(), size, config).shape
    if (high, wide) != left.shape:
        return (apart[0], Grid(side**2, high, wide, wide + 1))
    return (apart[0], *_crops(left // side**2, side**2, wide + 1))


def _crops(tile: Int[Tensor, "h w"], start: int, stride: int) -> list[Grid]:
    """Crops laid side by side from `start` on, given the number of the crop at each place."""
    return [
        Grid(start + top * stride + begin, bottom - top, end - begin, stride)
        for top, bottom in _runs(tile[:, 0])
        for begin, end in _runs(tile[0])
    ]


def _runs(values: Int[Tensor, " n"]) -> list[tuple[int, int]]:
    """Half-open intervals of the same value."""
    lengths = [len(list(run)) for _, run in groupby(values.tolist())]
    ends = list(accumulate(lengths))
    return list(zip([0, *ends[:-1]], ends, strict=True))
