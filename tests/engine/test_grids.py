"""Where visual tokens stand in their tiles, by hand and against the tokens' own order."""

from dataclasses import replace

import pytest
import torch

from disp_engine.models.llava.grids import token_grids
from disp_engine.models.llava.images import visual_tokens
from disp_engine.records import Grid
from tests.engine.models import masked_model, picture
from tests.engine.test_llada_v_images import CONFIG, NEWLINE, numbered

WHOLE = Grid(0, 2, 2, 2)


def grids(tiles, size, config=CONFIG, newline=True):  # type: ignore[no-untyped-def]
    return token_grids(size, tiles, config, newline=newline, as_list=True)


def test_crops_side_by_side_are_tiles_of_their_own() -> None:
    """Two crops of 2 x 2 after the whole picture: rows of four and a newline."""
    assert grids(3, (56, 28)) == (WHOLE, Grid(4, 2, 2, 5), Grid(6, 2, 2, 5))


def test_without_newlines_rows_follow_one_another() -> None:
    assert grids(3, (56, 28), newline=False) == (WHOLE, Grid(4, 2, 2, 4), Grid(6, 2, 2, 4))


def test_one_tile_is_one_grid_and_flat_tiles_lie_apart() -> None:
    assert grids(1, (28, 28)) == (WHOLE,)
    flat = replace(CONFIG, mm_patch_merge_type="flat")
    assert grids(2, (28, 28), flat) == (WHOLE, Grid(4, 2, 2, 2))


def test_crops_that_were_shrunk_are_one_tile() -> None:
    """Four crops at most one allowed: 4 x 4 tokens become 2 x 2."""
    shrunk = replace(CONFIG, image_aspect_ratio="anyres_max_1")
    assert grids(5, (56, 56), shrunk) == (WHOLE, Grid(4, 2, 2, 3))


@pytest.mark.parametrize("newline", [True, False])
@pytest.mark.parametrize(
    ("tiles", "size"), [(5, (56, 56)), (3, (56, 20)), (3, (20, 56)), (2, (9, 9))]
)
def test_a_grid_holds_its_own_crop_and_every_visual_token_is_in_one(
    tiles: int, size: tuple[int, int], newline: bool
) -> None:
    order = visual_tokens(numbered(tiles), size, NEWLINE if newline else None, CONFIG)[:, 0]
    found = grids(tiles, size, newline=newline)
    held = [token for grid in found for token in grid.tokens()]
    assert sorted(held) == (order >= 0).nonzero()[:, 0].tolist()
    for grid in found:
        values = order[grid.tokens()].long().view(grid.rows, grid.columns)
        assert len(set((values // 4).flatten().tolist())) == 1, "of one crop alone"
        assert (values.diff(dim=1) == 1).all() and (values.diff(dim=0) == 2).all()


def test_a_prompt_tells_where_its_visual_tokens_stand() -> None:
    model = masked_model("llada_v")
    shown = model.encode_images([picture(), picture(1, (20, 70))])
    ids = torch.tensor([5, -200, 6, -200])
    prompt = model.embed(type(model.tokenise_prompt([]))(ids), shown)
    held = [token for grid in prompt.grids for token in grid.tokens()]
    assert len(set(held)) == len(held)
    assert all(prompt.visual()[token] for token in held)
    for start, end in prompt.spans:
        assert start in held, "the whole picture comes first"
        assert any(start < grid.start < end for grid in prompt.grids), "then its crops"
