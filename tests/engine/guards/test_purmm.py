from typing import Any

import pytest
import torch

from disp_engine import registry
from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import Cell, Question, zeroed
from disp_engine.guards.purmm import (
    REFERENCES,
    ColumnSums,
    PurMMSettings,
    neighbourhoods,
    retained,
)
from disp_engine.guards.undefended import UndefendedSettings
from disp_engine.records import Embedded, Grid, Turn
from tests.engine.causal_models import FAMILIES, causal_model
from tests.engine.models import picture
from tests.laws.test_watching import eager

LENGTH = 5
QUESTIONS = [
    Question((Turn("human", "<image>\nWhat?"),), (picture(0, (30, 24)),)),
    Question((Turn("human", "<image>\nWhat is it that is shown?"),), (picture(1, (40, 60)),)),
]


def test_a_neighbourhood_ends_at_the_border_of_its_tile() -> None:
    """Two tiles of 2 x 3, numbered 0 1 2 / 3 4 5 and 6 7 8 / 9 10 11."""
    near = neighbourhoods([Grid(0, 2, 3, 3), Grid(6, 2, 3, 3)])
    assert near[0] == {0, 1, 3, 4}
    assert near[1] == {0, 1, 2, 3, 4, 5}
    assert near[5] == {1, 2, 4, 5}
    assert near[6] == {6, 7, 9, 10}, "nothing of the first tile"


LAYERS = [frozenset(layer) for layer in ({0, 8}, {2}, {8}, {0, 4}, {8}, {8, 6})]
"""Six layers on a tile of 3 x 3: 0 1 2 / 3 4 5 / 6 7 8; the deep half are the last three."""


@pytest.mark.parametrize(
    ("reference", "kept"),
    [
        # all that any layer suspects
        ("none", {0, 2, 4, 6, 8}),
        # {0, 4} u {8} u {8, 6}: the neighbourhood of 4 is everything
        ("deep_half", {0, 2, 4, 6, 8}),
        # layer 3 of 0..5 alone
        ("middle_layer", {0, 2, 4, 6, 8}),
        # the two shallow layers give {0, 8} u {2}; near {0, 4, 8, 6}: all of them
        ("shallow_filtered", {0, 2, 4, 6, 8}),
    ],
)
def test_a_reference_in_the_centre_keeps_all(reference: Any, kept: set[int]) -> None:
    near = neighbourhoods([Grid(0, 3, 3, 3)])
    assert retained(LAYERS, near, reference) == kept


ROW = [frozenset(layer) for layer in ({0}, {3}, {6}, {9}, {9}, {8}, {9}, {11})]
"""Eight layers on a tile of one row of twelve; the deep half are {9}, {8}, {9}, {11}."""


@pytest.mark.parametrize(
    ("reference", "kept"),
    [
        ("none", {0, 3, 6, 8, 9, 11}),
        ("deep_half", {8, 9, 11}),  # R = 8 9 11 reaches 7..12
        ("deep_half_and_one", {8, 9, 11}),  # R = 9 8 11 as well: layer 3 has 9
        ("middle_layer", {8, 9}),  # layer 4 alone: 8..10
        ("shallow_filtered", {6, 8, 9, 11}),  # 0 and 3 lie near none of 6 8 9 11
        ("most_frequent_8", {6, 8, 9, 11}),
    ],
)
def test_each_reference_set_keeps_what_lies_near_it(reference: Any, kept: set[int]) -> None:
    near = neighbourhoods([Grid(0, 1, 12, 12)])
    assert retained(ROW, near, reference) == kept


def test_of_the_most_frequent_the_first_in_the_picture_go_before() -> None:
    """Behind two layers 20 is suspected thrice, 0 3 6 9 12 once: the five are 20 0 3 6 9."""
    layers = [frozenset(layer) for layer in ({15}, {15}, {20, 12}, {20, 9, 6}, {20, 3, 0})]
    near = neighbourhoods([Grid(0, 1, 24, 24)])
    assert retained(layers, near, "most_frequent_5") == {0, 3, 6, 9, 20}
    assert retained(layers, near, "most_frequent_8") == {0, 3, 6, 9, 12, 20}


def test_an_empty_reference_set_keeps_nothing_but_in_the_middle_layers_script() -> None:
    near = neighbourhoods([Grid(0, 1, 4, 4)])
    layers = [frozenset({1}), frozenset({2}), frozenset(), frozenset()]
    assert retained(layers, near, "deep_half") == frozenset()
    assert retained(layers, near, "middle_layer") == {1, 2}


def sums(rows: Any, lengths: list[int]) -> ColumnSums:
    return ColumnSums(1, rows, lengths)


def test_rows_of_the_answer_are_averaged_while_it_goes_on() -> None:
    """Two heads, three columns; the second row's answer ends after one token."""
    watched = sums("answer", [3, 3])
    watched.in_prompt = False
    first = torch.tensor([[0.2, 0.4, 0.2, 0.2], [0.4, 0.2, 0.2, 0.2]])  # heads of one row
    watched.see(0, 0, torch.stack([first, first])[:, :, None])
    watched.counted = torch.tensor([True, False])
    second = torch.full((2, 2, 1, 5), 0.2)
    watched.see(0, 0, second)
    assert watched.means(0, 3, 2) is not None
    torch.testing.assert_close(watched.means(0, 3, 2), torch.tensor([[0.25, 0.25, 0.2]]))
    torch.testing.assert_close(watched.means(1, 3, 1), torch.tensor([[0.3, 0.3, 0.2]]))
    assert watched.means(1, 3, 0) is None, "an empty answer has no rows"


def test_all_causal_divides_each_column_by_its_own_rows() -> None:
    """A prompt of two after one of padding, and an answer of one token: 3 and 2 rows."""
    watched = sums("all_causal", [3, 2])
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75]])
    watched.see(0, 0, matrix.expand(2, 2, 3, 3))
    watched.in_prompt = False
    watched.see(0, 0, torch.tensor([0.0, 0.4, 0.3, 0.3]).expand(2, 2, 1, 4))
    found = watched.means(1, 2, 1)
    expected = torch.tensor([[(1.0 + 0.25 + 0.4) / 3, (0.0 + 0.75 + 0.3) / 2]])
    torch.testing.assert_close(found, expected)


def test_zeroing_leaves_the_other_embeddings_and_the_original() -> None:
    prompt = Embedded(torch.ones(4, 2), ((1, 3),), grids=(Grid(1, 1, 2, 2),))
    assert zeroed(prompt, [2]).embeddings.sum(dim=1).tolist() == [2, 2, 0, 2]
    assert prompt.embeddings.sum() == 8


@pytest.mark.parametrize("rows", ["answer", "all_causal", "last"])
@pytest.mark.parametrize("name", FAMILIES)
def test_attention_is_that_of_prompt_and_answer_read_together(name: str, rows: Any) -> None:
    """The authors read prompt and answer once more; here the answer's rows are seen on the way."""
    model: Any = causal_model(name)
    guard = PurMMSettings(rows=rows).build(model)
    prompts = guard._embedded(QUESTIONS)
    answers, watched = guard._first_answers(prompts, LENGTH)
    if rows == "last":
        _, watched = guard._read(prompts)
    for number, (prompt, said) in enumerate(zip(prompts, answers, strict=True)):
        size, count = len(prompt.embeddings), len(said)
        words = model.backbone.token_embeddings(said)
        places = prompt.positions
        if places is not None:
            places = torch.cat(
                [places, places.max() + 1 + torch.arange(count).expand(3, -1)], dim=1
            )
        whole = Embedded(torch.cat([prompt.embeddings, words]), prompt.spans, positions=places)
        matrices = torch.stack([layer[0].mean(dim=0) for layer in eager(model, [whole])])
        means = {
            "answer": matrices[:, size:].mean(dim=1),
            "all_causal": matrices.sum(dim=1) / torch.arange(size + count, 0, -1),
            "last": matrices[:, size - 1],
        }
        found = watched.means(number, size, count)
        assert count and found is not None
        torch.testing.assert_close(found, means[rows][:, :size], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_second_answer_is_that_to_the_zeroed_picture(name: str) -> None:
    model: Any = causal_model(name)
    guard = PurMMSettings().build(model)
    prompts = guard._embedded(QUESTIONS)
    judged = guard.judge(prompts, LENGTH)
    for prompt, ruling in zip(prompts, judged.rulings, strict=True):
        assert ruling.said is None and ruling.verdict.removed
        changed = (ruling.shown.embeddings != prompt.embeddings).any(dim=1)
        assert (ruling.shown.embeddings[changed] == 0).all()
        assert int(changed.sum()) == len(ruling.verdict.removed)
        assert (changed <= prompt.visual()).all(), "text is not touched"
    alone = [guard.answer([question], LENGTH)[0] for question in QUESTIONS]
    assert guard.answer(QUESTIONS, LENGTH) == alone, "a neighbour changes nothing"
    for question, guarded in zip(QUESTIONS, alone, strict=True):
        streamed = guard.stream(question, LENGTH)
        assert streamed.verdict == guarded.verdict
        assert "".join(piece.text for piece in streamed.pieces) == guarded.text


def test_where_nothing_is_removed_the_first_answer_is_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = causal_model("llava_1_5")
    guard = PurMMSettings().build(model)
    monkeypatch.setattr(guard, "located", lambda prompt, seen: [])
    plain = UndefendedSettings().build(model).answer(QUESTIONS, LENGTH)
    reads = []
    read = model.backbone.read
    monkeypatch.setattr(model.backbone, "read", lambda rows: reads.append(rows) or read(rows))
    assert guard.answer(QUESTIONS, LENGTH) == plain
    assert len(reads) == 1, "and the model is not asked a second time"


def test_removed_tokens_are_told_by_tile_row_and_column() -> None:
    model = causal_model("internvl")
    guard = PurMMSettings().build(model)
    (guarded,) = guard.answer(QUESTIONS[:1], LENGTH)
    assert guarded.verdict.flagged is None, "PurMM does not say whether there was a trigger"
    for cell in guarded.verdict.removed:
        assert isinstance(cell, Cell) and (cell.rows, cell.columns) == (2, 2)
        assert cell.picture == 0 and 0 <= cell.row < 2 and 0 <= cell.column < 2


@pytest.mark.parametrize(
    "wrong", [{"rows": "some"}, {"clustering": "trees"}, {"reference": "best"}, {"speed": 1}]
)
def test_settings_that_it_lacks_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        registry.guard("purmm", causal_model("llava_1_5"), wrong)


def test_there_are_seven_reference_sets() -> None:
    assert len(REFERENCES) == 7


def test_layers_whose_suspects_hardly_stand_out_do_not_count() -> None:
    """Of nine tokens the fifth draws ten times the rest in one layer, the first twice elsewhere."""
    prompt = Embedded(torch.zeros(9, 2), ((0, 9),), grids=(Grid(0, 3, 3, 3),))
    seen = torch.ones(2, 9)
    seen[0, 4], seen[1, 0] = 10.0, 2.0
    model: Any = causal_model("llava_1_5")
    plain = PurMMSettings(reference="none").build(model)
    assert plain.located(prompt, seen) == [0, 4]
    strict = PurMMSettings(reference="none", contrast=5.0).build(model)
    assert strict.located(prompt, seen) == [4]
    filtered = PurMMSettings(contrast=5.0).build(model)
    assert filtered.located(prompt, seen) == [4], "no deep layer counts, so nothing is filtered"


@pytest.mark.parametrize(("rounds", "removed"), [(1, {20}), (2, {20, 21}), (5, {20, 21})])
def test_rounds_locate_again_in_what_is_left(
    monkeypatch: pytest.MonkeyPatch, rounds: int, removed: set[int]
) -> None:
    model: Any = causal_model("llava_1_5")
    guard = PurMMSettings(rows="last", rounds=rounds).build(model)
    prompts = guard._embedded(QUESTIONS[:1])
    start = prompts[0].spans[0][0]
    calls = iter([[start], [start, start + 1], [start + 1], []])
    monkeypatch.setattr(guard, "located", lambda prompt, seen: next(calls))
    judged = guard.judge(prompts, LENGTH)
    (ruling,) = judged.rulings
    gone = [
        n - start + 20 for n in range(start, start + 16) if not ruling.shown.embeddings[n].any()
    ]
    assert set(gone) == removed == {c.row * 4 + c.column + 20 for c in ruling.verdict.removed}
    assert (judged.reading is not None) == (rounds == 5), "what is shown was read last"


def test_nothing_is_said_before_the_prompts_last_rows_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = causal_model("llava_1_5")
    guard = PurMMSettings(rows="last", contrast=1e6).build(model)
    expected = UndefendedSettings().build(model).answer(QUESTIONS, LENGTH)
    read: list[int] = []
    plain = model.read
    monkeypatch.setattr(model, "read", lambda prompts: read.append(len(prompts)) or plain(prompts))
    found = guard.answer(QUESTIONS, LENGTH)
    assert [one.text for one in found] == [one.text for one in expected]
    assert read == [2], "one pass where nothing is suspected"


@pytest.mark.parametrize("wrong", [{"contrast": 1.0}, {"rounds": 0}, {"rounds": 2}])
def test_settings_of_ours_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="guard"):
        PurMMSettings(**wrong).check()
