"""Tiling and merging by hand-made pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from disp_engine.models.llada_v.config import LladaVConfig
from disp_engine.models.llava.config import VisionConfig
from disp_engine.models.llava.images import best_resolution, tiles_of, visual_tokens

FIXTURE = Path(__file__).parents[1] / "fixtures" / "llada_v" / "anyres"
GRID = tuple((w, h) for w in (28, 56) for h in (28, 56))
CONFIG = replace(
    LladaVConfig.from_folder(FIXTURE),
    image_aspect_ratio="anyres",
    image_grid_pinpoints=GRID,
    vision=VisionConfig(image_size=28, patch_size=14),
)
NEWLINE = torch.tensor([-1.0])


def numbered(tiles: int) -> torch.Tensor:
    """Features [tiles, 4, 1] that count up, so that order can be read off."""
    return torch.arange(tiles * 4.0).reshape(tiles, 4, 1)


def merged(tiles: int, size: tuple[int, int], config: LladaVConfig = CONFIG) -> list[float]:
    return visual_tokens(numbered(tiles), size, NEWLINE, config).flatten().tolist()


def test_the_resolution_that_keeps_most_pixels_and_wastes_least_wins() -> None:
    assert best_resolution((20, 20), GRID) == (28, 28)
    assert best_resolution((100, 50), GRID) == (56, 28)
    assert best_resolution((50, 100), GRID) == (28, 56)


def test_a_wide_picture_gives_itself_and_its_tiles_from_left_to_right() -> None:
    picture = Image.new("RGB", (56, 28), (0, 0, 0))
    picture.paste((255, 255, 255), (28, 0, 56, 28))
    whole, left, right = tiles_of(picture, CONFIG)
    assert left.eq(-1).all() and right.eq(1).all()
    assert whole.mean().abs() < 0.01


def test_a_picture_is_centred_on_black() -> None:
    (_, tile) = tiles_of(Image.new("RGB", (28, 14), (255, 255, 255)), CONFIG)
    assert tile[:, :7].eq(-1).all() and tile[:, 7:21].eq(1).all() and tile[:, 21:].eq(-1).all()


def test_padding_takes_the_mean_colour() -> None:
    config = replace(CONFIG, image_aspect_ratio="pad")
    (tile,) = tiles_of(Image.new("RGB", (28, 14), (255, 255, 255)), config)
    assert tile[0, 0, 0].item() == pytest.approx(127 / 255 * 2 - 1)
    assert tile[:, 8:20].eq(1).all()


def test_a_square_aspect_squashes() -> None:
    config = replace(CONFIG, image_aspect_ratio="square")
    (tile,) = tiles_of(Image.new("RGB", (28, 14), (255, 255, 255)), config)
    assert tile.eq(1).all()


def test_the_tensor_form_of_an_anyres_model_pads() -> None:
    wide = Image.new("RGB", (56, 28), (255, 255, 255))
    padded = tiles_of(wide, replace(CONFIG, image_aspect_ratio="pad"))
    assert torch.equal(tiles_of(wide, CONFIG, as_list=False), padded)


def test_every_row_of_the_grid_ends_with_a_newline() -> None:
    base = [0.0, 1, 2, 3]
    assert merged(3, (56, 28)) == [*base, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]


def test_rows_that_hold_only_the_border_are_cut() -> None:
    # 2 x 2 tiles give a 4 x 4 grid; of 56 x 28 only the rows 1 and 2 hold the picture.
    config = replace(CONFIG, image_grid_pinpoints=((56, 56),))
    rows = merged(5, (56, 28), config)[4:]
    assert rows == [6, 7, 10, 11, -1, 12, 13, 16, 17, -1]


def test_a_picture_above_the_maximum_is_shrunk() -> None:
    config = replace(CONFIG, image_aspect_ratio="anyres_max_1", image_grid_pinpoints=((56, 56),))
    tokens = merged(5, (56, 56), config)
    assert tokens[4:] == [5.5, 9.5, -1, 13.5, 17.5, -1]  # means of 2 x 2 patches


def test_one_tile_ends_with_a_newline_in_list_form_only() -> None:
    assert merged(1, (9, 9)) == [0, 1, 2, 3, -1]
    tensor = visual_tokens(numbered(1), (9, 9), NEWLINE, CONFIG, as_list=False)
    assert tensor.flatten().tolist() == [0, 1, 2, 3]


def test_a_flat_merge_keeps_the_tiles_in_order() -> None:
    config = replace(CONFIG, mm_patch_merge_type="flat")
    tokens = visual_tokens(numbered(3), (56, 28), None, config)
    assert tokens.flatten().tolist() == list(range(12))
