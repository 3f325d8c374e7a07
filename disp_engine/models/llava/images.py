"""Pictures to tiles, and projected tiles to the visual tokens the language model reads.

A tile is a square of S pixels, or P = side^2 features; D is the language model's width.
Sizes of pictures and resolutions are (width, height).
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL.Image import Image, Resampling
from PIL.Image import new as new_image
from torch import Tensor
from torch.nn import functional

from disp_engine.models.llava.config import LlavaConfig

_MEAN = 0.5
_STD = 0.5
_LARGEST_SHRINK_IGNORED = 1.1
"""`anyres_max_N` leaves a picture alone up to this ratio of its side to the largest one."""


def tiles_of(
    image: Image, config: LlavaConfig, *, as_list: bool = True
) -> Float[Tensor, "N 3 S S"]:
    """Cut a picture as the config says; in the tensor form an anyres model pads instead."""
    picture, side = image.convert("RGB"), config.vision.image_size
    if config.tiled and as_list:
        resolution = best_resolution(picture.size, config.image_grid_pinpoints)
        crops = _crops(_fit(picture, resolution), side)
        return torch.stack([_pixels(tile) for tile in (_squash(picture, side), *crops)])
    if config.tiled or config.image_aspect_ratio == "pad":
        picture = _square(picture)
    return _pixels(_squash(picture, side))[None]


def visual_tokens(
    tiles: Float[Tensor, "N P D"],
    size: tuple[int, int],
    newline: Float[Tensor, " D"] | None,
    config: LlavaConfig,
    *,
    as_list: bool = True,
) -> Float[Tensor, "T D"]:
    """Merge a picture's projected tiles: the whole picture first, then the grid of its tiles.

    Pictures given as a plain tensor are neither pooled nor merged.
    """
    if not as_list:
        return tiles.flatten(0, 1)
    if config.pooled:
        tiles = pool(tiles, config)
    if config.mm_patch_merge_type == "flat":
        return tiles.flatten(0, 1)
    if len(tiles) == 1:
        return tiles[0] if newline is None else torch.cat([tiles[0], newline[None]])
    if newline is None:
        return torch.cat([tiles[0], laid_grid(tiles[1:], size, config).flatten(1).T])
    grid = merged_grid(tiles[1:], size, config)
    column = newline[:, None, None].expand(-1, grid.shape[1], 1)
    return torch.cat([tiles[0], torch.cat([grid, column], dim=2).flatten(1).T])


def merged_grid(
    tiles: Float[Tensor, "N P D"], size: tuple[int, int], config: LlavaConfig
) -> Float[Tensor, "D h w"]:
    """The tiles behind the first laid out, without black border, at most as large as allowed."""
    return _shrink(unpadded_grid(tiles, size, config), config)


def unpadded_grid(
    tiles: Shaped[Tensor, "N P D"], size: tuple[int, int], config: LlavaConfig
) -> Shaped[Tensor, "D h w"]:
    """The same as large as it is."""
    return _unpad(laid_grid(tiles, size, config), size)


def laid_grid(
    tiles: Shaped[Tensor, "N P D"], size: tuple[int, int], config: LlavaConfig
) -> Shaped[Tensor, "D H W"]:
    """Row-major tiles side by side, black border and all."""
    pixels, side = config.vision.image_size, config.tile_side
    width, height = best_resolution(size, config.image_grid_pinpoints)
    across, down = width // pixels, height // pixels
    grid = tiles.reshape(down, across, side, side, -1).permute(4, 0, 2, 1, 3)
    return grid.reshape(-1, down * side, across * side)


def pool(tiles: Float[Tensor, "N P D"], config: LlavaConfig) -> Float[Tensor, "N Q D"]:
    """Bring each tile's tokens to half as many on a side, rounded up, by bilinear resampling."""
    side = config.vision.side
    grid = tiles.reshape(len(tiles), side, side, -1).permute(0, 3, 1, 2)
    small = functional.interpolate(grid, (config.tile_side, config.tile_side), mode="bilinear")
    return small.flatten(2).transpose(1, 2)


def best_resolution(
    size: tuple[int, int], resolutions: Iterable[tuple[int, int]]
) -> tuple[int, int]:
    """The resolution that keeps most of the picture's pixels; among equals the least waste."""
    width, height = size

    def merit(resolution: tuple[int, int]) -> tuple[int, int]:
        scale = min(resolution[0] / width, resolution[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - resolution[0] * resolution[1]

    return max(resolutions, key=merit)


def _fit(picture: Image, resolution: tuple[int, int]) -> Image:
    """Resize with the aspect kept, centred on black."""
    (width, height), (wide, high) = picture.size, resolution
    across, down = wide / width, high / height
    if across < down:
        fitted = wide, min(math.ceil(height * across), high)
    else:
        fitted = min(math.ceil(width * down), wide), high
    canvas = new_image("RGB", resolution, (0, 0, 0))
    corner = (wide - fitted[0]) // 2, (high - fitted[1]) // 2
    canvas.paste(picture.resize(fitted, Resampling.BICUBIC), corner)
    return canvas


def _crops(canvas: Image, side: int) -> list[Image]:
    return [
        canvas.crop((left, top, left + side, top + side))
        for top in range(0, canvas.height, side)
        for left in range(0, canvas.width, side)
    ]


def _squash(picture: Image, side: int) -> Image:
    return picture.resize((side, side), Resampling.BICUBIC)


def _square(picture: Image) -> Image:
    """Pad to a square with the mean colour."""
    longest = max(picture.size)
    canvas = new_image("RGB", (longest, longest), (int(_MEAN * 255),) * 3)
    canvas.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    return canvas


def _pixels(tile: Image) -> Float[Tensor, "3 S S"]:
    values = np.asarray(tile, dtype=np.float32) / 255
    return torch.from_numpy((values - _MEAN) / _STD).permute(2, 0, 1).contiguous()


def _unpad(grid: Shaped[Tensor, "D H W"], size: tuple[int, int]) -> Shaped[Tensor, "D h w"]:
    """Cut off the rows or columns that only hold the black border."""
    (width, height), (high, wide) = size, grid.shape[1:]
    if width / height > wide / high:
        border = (high - int(height * (wide / width))) // 2
        return grid[:, border : high - border]
    border = (wide - int(width * (high / height))) // 2
    return grid[:, :, border : wide - border]


def _shrink(grid: Float[Tensor, "D H W"], config: LlavaConfig) -> Float[Tensor, "D h w"]:
    """Bring a picture of more than N tiles down to about N (`anyres_max_N`)."""
    if config.anyres_max is None:
        return grid
    high, wide = grid.shape[1:]
    ratio = math.sqrt(high * wide / (config.anyres_max * config.tile_side**2))
    if ratio <= _LARGEST_SHRINK_IGNORED:
        return grid
    shrunk = int(high // ratio), int(wide // ratio)
    return functional.interpolate(grid[None], shrunk, mode="bilinear")[0]
