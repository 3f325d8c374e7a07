"""The baselines' own arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image, fromarray

from disp_engine import registry
from disp_engine.errors import InvalidDatasetError, InvalidRequestError
from disp_engine.guards.blur import BlurSettings
from disp_engine.guards.flip import FlipSettings
from disp_engine.guards.guard import Question
from disp_engine.guards.random_tokens import RandomTokensSettings
from disp_engine.guards.shrink_pad import ShrinkPadSettings
from disp_engine.guards.sparse_vlm import RatersRows, SparseVlmSettings, raters
from disp_engine.guards.strip import Strip, StripSettings
from disp_engine.records import Embedded, Grid, Turn
from tests.engine.causal_models import causal_model
from tests.engine.models import picture
from tests.engine.test_guarding import archive


def asked(image: Image) -> Question:
    return Question((Turn("human", "<image>\nWhat?"),), (image,))


def white(width: int, height: int) -> Image:
    return fromarray(np.full((height, width, 3), 255, dtype=np.uint8))


def test_random_zeroing_takes_the_share_rounded_down_and_the_same_ones_again() -> None:
    model = causal_model("llava_1_5")
    guard = RandomTokensSettings(share=0.2).build(model)
    (first,), (again,) = (guard.answer([asked(picture())], 3) for _ in range(2))
    assert len(first.verdict.removed) == 3, "a fifth of 16"
    assert first.verdict.removed == again.verdict.removed
    other = RandomTokensSettings(share=0.2, seed=1).build(model).answer([asked(picture())], 3)
    assert other[0].verdict.removed != first.verdict.removed


def test_a_flip_mirrors_left_and_right() -> None:
    image = picture(0, (6, 4))
    (shown,) = FlipSettings().build(causal_model("llava_1_5")).prepared(asked(image)).images
    assert (np.asarray(shown) == np.asarray(image)[:, ::-1]).all()


def test_a_blur_spreads_a_point_and_keeps_a_plain_picture() -> None:
    guard = BlurSettings(share=0.1).build(causal_model("llava_1_5"))
    (plain,) = guard.prepared(asked(white(40, 40))).images
    assert (np.asarray(plain) == 255).all()
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[20, 20] = 255
    (spread,) = guard.prepared(asked(fromarray(pixels))).images
    assert 0 < np.asarray(spread)[20, 20, 0] < 255 and np.asarray(spread)[20, 22, 0] > 0


def test_shrink_pad_keeps_the_size_and_pads_an_eighth_with_black() -> None:
    guard = ShrinkPadSettings().build(causal_model("llava_1_5"))
    (shown,) = guard.prepared(asked(white(32, 16))).images
    assert shown.size == (32, 16)
    assert (np.asarray(shown)[..., 0] == 255).sum() == 28 * 14


def test_relevant_texts_rate() -> None:
    """One visual token; of three texts the second agrees with it most."""
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    prompt = Embedded(rows, ((0, 1),), grids=(Grid(0, 1, 1, 1),))
    assert raters(prompt).tolist() == [False, False, True, False]


def test_ratings_are_sums_over_the_raters_rows() -> None:
    look = RatersRows(0, torch.tensor([False, True, True]))
    weights = torch.tensor([[[[1.0, 0, 0], [0.5, 0.5, 0]], [[1.0, 0, 0], [0.1, 0.9, 0]]]])
    look.see(0, 0, weights)
    look.see(0, 2, torch.tensor([[[[0.2, 0.2, 0.6]], [[0.2, 0.2, 0.6]]]]))
    torch.testing.assert_close(look.rating, torch.tensor([0.3 + 0.2, 0.7 + 0.2, 0.6]))


def test_sparse_vlm_keeps_a_third() -> None:
    guard = SparseVlmSettings().build(causal_model("llava_1_5"))
    (found,) = guard.answer([asked(picture())], 3)
    assert len(found.verdict.removed) == 16 - 5


def test_strip_scores_the_share_of_blends_with_the_same_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = causal_model("llava_1_5")
    guard = Strip(model, [picture(n) for n in range(4)], 0.5)
    texts = iter(["a", "a", "b", "a", "c"])
    monkeypatch.setattr(model, "text", lambda ids: next(texts))
    assert guard.agreement(asked(picture(9)), 2) == 0.5


def test_strips_threshold_comes_from_clean_questions_that_are_not_laid_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path / "clean.zip", [f"What {n}?" for n in range(13)], tmp_path / "pool")
    asked_of: list[str] = []

    def agreement(guard: Strip, question: Question, length: int) -> float:
        asked_of.append(question.turns[0].text)
        return len(asked_of) / 10

    monkeypatch.setattr(Strip, "agreement", agreement)
    settings = StripSettings(str(tmp_path / "clean.zip"), pictures=3, length=2)
    guard = settings.build(causal_model("llava_1_5"))
    assert len(guard.clean) == 3 and len(asked_of) == 10
    assert not any(f"What {n}?" in text for text in asked_of for n in range(3))
    assert guard.threshold == pytest.approx(0.91), "nine of ten are below"
    with pytest.raises(InvalidDatasetError, match="14 clean questions"):
        StripSettings(str(tmp_path / "clean.zip"), pictures=4).build(guard.model)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("random_tokens", {"share": 2}),
        ("blur", {"share": 0}),
        ("shrink_pad", {"share": 1}),
        ("sparse_vlm", {"kept": 0}),
        ("strip", {"clean": "x", "alpha": 1}),
    ],
)
def test_shares_that_make_no_sense_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="guard"):
        registry.guard(name, causal_model("llava_1_5"), wrong)


@pytest.mark.parametrize(
    ("name", "options", "derived"),
    [
        ("blur", {}, False),
        ("sparse_vlm", {}, True),
        ("purmm", {}, False),
        ("purmm", {"rows": "all_causal"}, False),
        ("purmm", {"rows": "last"}, True),
        ("purmm", {"contrast": 25.0}, True),
    ],
)
def test_what_is_not_as_published_is_called_derived(
    name: str, options: dict[str, Any], derived: bool
) -> None:
    assert registry.guard(name, causal_model("llava_1_5"), options).derived == derived
