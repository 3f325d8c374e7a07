import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from disp_engine import registry
from disp_engine.errors import InvalidDatasetError, InvalidRequestError
from disp_engine.guards.cleansight import (
    Calibration,
    CalibrationSettings,
    CleanSight,
    calibrate,
    ratios,
)
from disp_engine.guards.guard import Question, hidden_columns
from disp_engine.guards.undefended import UndefendedSettings
from disp_engine.records import Embedded, Grid, Reading, Turn
from disp_engine.training.projector import projector_sha256
from tests.engine.causal_models import FAMILIES, causal_model
from tests.engine.models import picture
from tests.laws.test_watching import eager

LENGTH = 5
QUESTIONS = [
    Question((Turn("human", f"<image>\nWhat{'?' * n}"),), (picture(n, (30 + n, 24)),))
    for n in range(1, 6)
]


def test_the_question_is_what_follows_the_picture() -> None:
    """Six positions: one before the picture, three of the picture, two of the question."""
    prompt = Embedded(torch.zeros(6, 2), ((1, 4),), grids=(Grid(1, 1, 3, 3),))
    row = torch.tensor([[0.1, 0.1, 0.2, 0.1, 0.2, 0.3], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    found = ratios(prompt, [row, row.flip(0)])
    np.testing.assert_allclose(found, [0.4 / 0.5, 0.3 / 0.2, 0.3 / 0.2, 0.4 / 0.5], rtol=1e-5)


def test_distances_are_whitened_by_each_head() -> None:
    told = Calibration("m", "p", (1,), (1.0, 2.0), (0.5, 2.0), 1.0, 99.0, None, 9)
    found = told.distances(np.array([[2.5, 2.0], [1.0, 10.0], [2.5, 10.0]]))
    np.testing.assert_allclose(found, [3.0, 4.0, 5.0])


@pytest.mark.parametrize(("depth", "first", "last"), [(32, 10, 24), (4, 1, 3), (28, 9, 21)])
def test_the_authors_layers_are_taken_at_the_same_depth(depth: int, first: int, last: int) -> None:
    assert CalibrationSettings().layers(depth) == list(range(first, last + 1))
    assert CalibrationSettings(0, 1).layers(depth) == [0, 1]
    with pytest.raises(InvalidRequestError, match="not among"):
        CalibrationSettings(0, depth).layers(depth)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_calibration_is_the_statistics_of_the_last_rows(name: str) -> None:
    model: Any = causal_model(name)
    found = calibrate(model, QUESTIONS, CalibrationSettings(1, 2, percentile=50), batch=2)
    guard = UndefendedSettings().build(model)
    rows = []
    for question in QUESTIONS:
        (prompt,) = guard._embedded([question])
        matrices = eager(model, [prompt])
        rows.append(ratios(prompt, [matrices[layer][0, :, -1] for layer in (1, 2)]))
    s = np.stack(rows)
    np.testing.assert_allclose(found.mean, s.mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(found.deviation, s.std(axis=0) + 1e-8, rtol=2e-2, atol=1e-4)
    d = np.sort(found.distances(s))
    np.testing.assert_allclose(found.threshold, d[2], rtol=2e-2)
    assert (found.layers, found.samples) == ((1, 2), 5)


def flagging(model: Any, tau: float) -> CleanSight:
    """A guard to which every question is suspicious."""
    clean = calibrate(model, QUESTIONS, CalibrationSettings(1, 2, tau=tau))
    return CleanSight(model, Calibration(**vars(clean) | {"threshold": -1.0}))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_not_flagged_is_answered_as_without_a_guard(name: str) -> None:
    model: Any = causal_model(name)
    clean = calibrate(model, QUESTIONS, CalibrationSettings(percentile=100))
    rounding = 1.001  # the farthest question is the threshold, and is measured in another batch
    guard = CleanSight(model, replace(clean, threshold=clean.threshold * rounding))
    plain = UndefendedSettings().build(model)
    answers = guard.answer(QUESTIONS[:3], LENGTH)
    expected = plain.answer(QUESTIONS[:3], LENGTH)
    assert [one.text for one in answers] == [one.text for one in expected]
    assert [one.verdict.flagged for one in answers] == [False] * 3
    assert all(one.verdict.removed == () for one in answers)


@pytest.mark.parametrize("name", FAMILIES)
def test_hidden_are_the_tokens_that_any_head_looks_at_more_than_tau(name: str) -> None:
    model: Any = causal_model(name)
    guard = flagging(model, tau=0.03)
    prompts = guard._embedded(QUESTIONS[:2])
    judged = guard.judge(prompts, LENGTH)
    for prompt, ruling in zip(prompts, judged.rulings, strict=True):
        last = eager(model, [prompt])[2][0, :, -1]
        tokens = [token for grid in prompt.grids for token in grid.tokens()]
        expected = [token for token in tokens if float(last[:, token].max()) > 0.03]
        assert list(ruling.hidden) == expected and 0 < len(expected) < len(tokens)
        assert ruling.verdict.flagged and len(ruling.verdict.removed) == len(expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_pruned_answers_do_not_depend_on_their_neighbours_or_on_streaming(name: str) -> None:
    model: Any = causal_model(name)
    guard = flagging(model, tau=0.03)
    together = guard.answer(QUESTIONS[:2], LENGTH)
    for question, guarded in zip(QUESTIONS[:2], together, strict=True):
        (alone,) = guard.answer([question], LENGTH)
        assert alone.text == guarded.text and alone.verdict.removed == guarded.verdict.removed
        streamed = guard.stream(question, LENGTH)
        assert "".join(piece.text for piece in streamed.pieces) == guarded.text
    prompts = guard._embedded(QUESTIONS[:2])
    columns = hidden_columns(guard.judge(prompts, LENGTH).rulings)
    with model.hiding(columns, guard.first_hidden_layer):
        pruned = model.read(prompts).logits
    assert not torch.allclose(pruned, model.read(prompts).logits), "pruning does something"


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_flagged_is_read_once_and_as_if_hidden_from_the_beginning(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = causal_model(name)
    guard, readings = flagging(model, tau=0.03), []
    read = type(model).read

    def noted(self: Any, prompts: Any) -> Any:
        readings.append(read(self, prompts))
        return readings[-1]

    monkeypatch.setattr(type(model), "read", noted)
    prompts = guard._embedded(QUESTIONS[:2])
    guard.answer_prompts(prompts, LENGTH)
    assert len(readings) == 1
    judged = guard.judge(prompts, LENGTH)
    assert judged.hidden and isinstance(judged.reading, Reading)
    columns = hidden_columns(judged.rulings)
    assert columns is not None and columns.any()
    with model.hiding(columns, guard.first_hidden_layer):
        torch.testing.assert_close(judged.reading.logits, read(model, prompts).logits)


def test_nothing_is_hidden_between_two_pieces_of_a_stream() -> None:
    model: Any = causal_model("llava_1_5")
    plain = UndefendedSettings().build(model)
    expected = plain.answer(QUESTIONS[:1], LENGTH)
    pieces = flagging(model, tau=0.01).stream(QUESTIONS[0], LENGTH).pieces
    next(pieces)
    assert plain.answer(QUESTIONS[:1], LENGTH) == expected


def test_tau_none_is_in_proportion_to_the_picture() -> None:
    """Sixteen visual tokens: 0.02 x 576 / 16 = 0.72."""
    guard = CleanSight(
        causal_model("llava_1_5"),
        Calibration("m", "p", (1,), (1.0,), (1.0,), 0.0, 99.0, None, 9),
    )
    prompt = Embedded(torch.zeros(18, 2), ((1, 17),), grids=(Grid(1, 4, 4, 4),))
    last = torch.zeros(2, 18)
    last[0, 3], last[1, 5], last[1, 6] = 0.73, 0.71, 0.73
    assert guard._pruned(prompt, last) == [3, 6]


def test_a_calibration_is_for_one_model_and_one_projector(tmp_path: Path) -> None:
    model: Any = causal_model("llava_1_5")
    path = tmp_path / "calibration.json"
    calibrate(model, QUESTIONS, CalibrationSettings()).save(path)
    guard = registry.guard("cleansight", model, {"calibration": str(path)})
    assert isinstance(guard, CleanSight)
    with pytest.raises(InvalidRequestError, match="another model"):
        registry.guard("cleansight", causal_model("llava_next"), {"calibration": str(path)})
    told = json.loads(path.read_text())
    assert told["projector"] == projector_sha256(model.projector)
    path.write_text(json.dumps(told | {"projector": "0" * 64}))
    with pytest.raises(InvalidRequestError, match="another projector"):
        registry.guard("cleansight", model, {"calibration": str(path)})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}'])
def test_what_is_no_calibration_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(InvalidRequestError, match="disp guard calibrate"):
        Calibration.load(path)


def test_it_needs_a_calibration_and_a_calibration_needs_samples() -> None:
    model: Any = causal_model("llava_1_5")
    with pytest.raises(InvalidRequestError, match="needs calibration"):
        registry.guard("cleansight", model)
    with pytest.raises(InvalidDatasetError, match="two clean questions"):
        calibrate(model, QUESTIONS[:1], CalibrationSettings())
