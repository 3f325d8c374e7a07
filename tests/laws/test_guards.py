"""What every guard promises, on a tiny random model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from disp_engine import registry
from disp_engine.errors import InvalidRequestError, SampleError
from disp_engine.guards.cleansight import CalibrationSettings, calibrate
from disp_engine.guards.guard import Guard, Question
from disp_engine.records import Turn
from tests.engine.causal_models import causal_model
from tests.engine.models import MASKED, masked_model, picture
from tests.engine.picture_models import ddpm_folder, mae_folder
from tests.engine.test_guarding import archive

LENGTH = 5
FAMILIES = ("llava_1_5", "qwen2_vl", *MASKED)
CAUSAL_ONLY = ("sparse_vlm",)
PAIRS = [
    (f, g) for f in FAMILIES for g in registry.GUARDS if f not in MASKED or g not in CAUSAL_ONLY
]


def question(number: int) -> Question:
    images = (picture(number, (30 + number, 26)),)
    return Question((Turn("human", f"<image>\nWhat is{' it' * number}?"),), images)


QUESTIONS = [question(number) for number in range(4)]


@pytest.fixture(params=PAIRS, ids=" ".join)
def guard(request: pytest.FixtureRequest, tmp_path: Path) -> Guard:
    family, name = request.param
    model: Any = masked_model(family) if family in MASKED else causal_model(family)
    options: dict[str, Any] = {}
    if name == "cleansight":
        path = tmp_path / "calibration.json"
        calibrate(model, QUESTIONS, CalibrationSettings(tau=0.01, percentile=50)).save(path)
        options = {"calibration": str(path)}
    if name == "strip":
        archive(tmp_path / "clean.zip", [f"What {n}?" for n in range(12)], tmp_path / "pool")
        options = {"clean": str(tmp_path / "clean.zip"), "pictures": 2, "length": LENGTH}
    if name in ("diff_pure", "zip", "samp_detox"):
        options = {"ddpm": str(ddpm_folder()), "steps": 3}
    if name == "bdmae":
        options = {"mae": str(mae_folder()), "masks": 2, "length": LENGTH}
    return registry.guard(name, model, options)


def test_an_answer_depends_on_its_own_question_only(guard: Guard) -> None:
    together = guard.answer(QUESTIONS, LENGTH)
    assert len(together) == len(QUESTIONS), "law: one answer to each question"
    for one, guarded in zip(QUESTIONS, together, strict=True):
        (alone,) = guard.answer([one], LENGTH)
        assert alone.text == guarded.text, "law: neighbours change nothing"
        assert alone.verdict.removed == guarded.verdict.removed


def test_a_streamed_answer_is_the_whole_one(guard: Guard) -> None:
    for one in QUESTIONS[:2]:
        (whole,) = guard.answer([one], LENGTH)
        streamed = guard.stream(one, LENGTH)
        pieces = list(streamed.pieces)
        assert "".join(piece.text for piece in pieces) == whole.text, "law: pieces add up"
        assert streamed.verdict.flagged == whole.verdict.flagged
        assert (streamed.asked, max(p.answered for p in pieces)) == (whole.asked, whole.answered)


def test_a_guard_leaves_the_model_as_it_was(guard: Guard) -> None:
    model: Any = guard.model
    before = [parameter.detach().clone() for parameter in parameters_of(model)]
    plain = registry.guard("undefended", model)
    expected = plain.answer(QUESTIONS[:2], LENGTH)
    guard.answer(QUESTIONS[:2], LENGTH)
    assert plain.answer(QUESTIONS[:2], LENGTH) == expected, "law: nothing stays hidden or zeroed"
    for parameter, value in zip(parameters_of(model), before, strict=True):
        assert torch.equal(parameter, value), "law: no weight is changed"


def parameters_of(model: Any) -> list[torch.Tensor]:
    whole = (model.backbone.whole,) if hasattr(model, "backbone") else (
        model.language, model.projector, model.tower,
    )  # fmt: skip
    return [parameter for module in whole for parameter in module.parameters()]


def test_a_guard_that_is_not_as_published_says_so(guard: Guard) -> None:
    expected = hasattr(guard.model, "denoise") or not guard.as_published
    assert guard.derived == expected, "law: what is not published is told"


def test_removed_tokens_are_cells_of_the_picture(guard: Guard) -> None:
    for guarded in guard.answer(QUESTIONS, LENGTH):
        cells = guarded.verdict.removed
        assert len(set(cells)) == len(cells)
        for cell in cells:
            assert 0 <= cell.row < cell.rows and 0 <= cell.column < cell.columns


def test_a_question_without_a_picture_is_answered_or_refused_but_never_passed_off_as_guarded(
    guard: Guard,
) -> None:
    bare = Question((Turn("human", "What?"),), ())
    try:
        (guarded,) = guard.answer([bare], LENGTH)
    except SampleError as error:
        assert "no picture" in str(error)
    else:
        assert guarded.verdict.removed == ()


def test_an_unknown_setting_is_refused() -> None:
    for name in registry.GUARDS:
        with pytest.raises(InvalidRequestError, match="has no nonsense"):
            registry.guard(name, causal_model("llava_1_5"), {"nonsense": 1})
