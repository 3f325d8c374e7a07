"""A masked diffusion model in the place of a causal one."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from disp_engine import registry
from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.guards.cleansight import CalibrationSettings, CleanSight, calibrate, ratios
from disp_engine.guards.guard import Question
from disp_engine.guards.purmm import PurMMSettings
from disp_engine.guards.respondent import BLOCK, DenoisingRespondent, respondent_of
from disp_engine.interfaces import Generation
from disp_engine.records import Embedded, Turn
from tests.engine.causal_models import causal_model
from tests.engine.models import GEMMA, MASKED, masked_model, picture

LENGTH = 5
QUESTIONS = [
    Question((Turn("human", f"<image>\nWhat{' is it' * n}?"),), (picture(n, (30 + n, 24)),))
    for n in range(4)
]


@pytest.fixture(params=MASKED)
def model(request: pytest.FixtureRequest) -> Any:
    return masked_model(request.param)


@pytest.fixture
def prompts(model: Any) -> list[Embedded]:
    with torch.no_grad():
        return [
            model.embed(model.tokenise_prompt(one.turns), model.encode_images(one.images))
            for one in QUESTIONS[:2]
        ]


@dataclass
class Everything:
    """Keeps all rows that it is shown."""

    layers: frozenset[int]
    rows: Literal["last", "all"] = "last"
    seen: list[tuple[int, int, Tensor]] = field(default_factory=list)

    def see(self, layer: int, first: int, weights: Tensor) -> None:
        self.seen.append((layer, first, weights))


@torch.no_grad()
def rows_of(model: Any, prompt: Embedded, response: Tensor) -> Tensor:
    """Attention [layer, head, row, column of the prompt] of what follows a prompt."""
    size = len(prompt.embeddings)
    whole = torch.cat([prompt.embeddings, response])[None]
    at = torch.arange(size, size + len(response))[None]
    return model.attention_rows(whole, at, range(model.depth))[0, ..., :size]


def test_the_masked_block_stands_for_the_last_row(model: Any, prompts: list[Embedded]) -> None:
    respondent, watcher = DenoisingRespondent(model), Everything(frozenset({0, 2}))
    with respondent.watching(watcher):
        reading = respondent.read(prompts)
    longest = max(len(prompt.embeddings) for prompt in prompts)
    assert [layer for layer, _, _ in watcher.seen] == [0, 2], "named layers only"
    for layer, first, weights in watcher.seen:
        assert first == longest - 1 and weights.shape[2:] == (1, longest)
        for row, (prompt, pad) in enumerate(zip(prompts, reading.pads, strict=True)):
            masks = model.mask_embedding.expand(BLOCK, -1)
            expected = rows_of(model, prompt, masks)[layer].mean(dim=1)
            torch.testing.assert_close(weights[row, :, 0, pad:], expected)
            assert (weights[row, :, 0, :pad] == 0).all()


def test_an_answers_rows_are_those_of_prompt_and_answer_read_together(
    model: Any, prompts: list[Embedded]
) -> None:
    respondent, watcher = DenoisingRespondent(model), Everything(frozenset(range(model.depth)))
    with respondent.watching(watcher):
        said = list(respondent.say(DenoisingRespondent(model).read(prompts), LENGTH))
    answers = model.denoise(prompts, Generation(LENGTH, LENGTH))
    assert len(watcher.seen) == model.depth * sum(bool(one.alive.any()) for one in said)
    for number, ids in enumerate(answers):
        told = [one.ids[number] for one in said if bool(one.alive[number])]
        assert [int(one) for one in told] == ids.tolist()
        expected = rows_of(model, prompts[number], model.token_embeddings(ids))
        for step in range(len(ids)):
            for layer, _, weights in watcher.seen[step * model.depth : (step + 1) * model.depth]:
                found = weights[number, :, 0, -expected.shape[-1] :]
                torch.testing.assert_close(found, expected[layer, :, step])


@pytest.mark.parametrize(("length", "denoised"), [(5, (5, 5)), (40, (64, 32))])
def test_answers_are_denoised_in_whole_blocks_and_cut(
    model: Any, prompts: list[Embedded], length: int, denoised: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked: list[Generation] = []

    def endless(rows: Any, generation: Generation) -> list[Tensor]:
        asked.append(generation)
        return [torch.arange(generation.length) for _ in rows]

    monkeypatch.setattr(model, "denoise", endless)
    respondent = DenoisingRespondent(model)
    said = list(respondent.say(respondent.read(prompts), length))
    assert [(one.length, one.block_length) for one in asked] == [denoised]
    assert [int(one.ids[0]) for one in said] == list(range(length))


def test_hidden_is_each_prompts_own(model: Any, prompts: list[Embedded]) -> None:
    """The second of two prompts loses three columns; the first is answered as ever."""
    respondent = DenoisingRespondent(model)
    reading = respondent.read(prompts)
    columns = torch.zeros(2, max(len(p.embeddings) for p in prompts), dtype=torch.bool)
    own = torch.zeros(len(prompts[1].embeddings), dtype=torch.bool)
    own[prompts[1].spans[0][0] :][:3] = True
    columns[1, reading.pads[1] :] = own
    with respondent.hiding(columns, 1):
        found = list(respondent.say(reading, LENGTH))
    generation = Generation(LENGTH, LENGTH)
    (first,) = model.denoise(prompts[:1], generation)
    with model.hiding(own, 1):
        (second,) = model.denoise(prompts[1:], generation)
    for row, expected in enumerate((first, second)):
        ids = [int(one.ids[row]) for one in found if bool(one.alive[row])]
        assert ids == expected.tolist()


def test_nobody_watches_or_hides_after_an_error(model: Any, prompts: list[Embedded]) -> None:
    respondent, watcher = DenoisingRespondent(model), Everything(frozenset({0}))
    columns = torch.ones(2, 1, dtype=torch.bool)
    with (
        pytest.raises(RuntimeError, match="broke off"),
        respondent.watching(watcher),
        respondent.hiding(columns, 0),
    ):
        raise RuntimeError("it broke off")
    plain = [one.ids.tolist() for one in respondent.say(respondent.read(prompts), LENGTH)]
    fresh = DenoisingRespondent(model)
    assert plain == [one.ids.tolist() for one in fresh.say(fresh.read(prompts), LENGTH)]
    assert watcher.seen == []


def test_a_causal_model_answers_itself_and_one_that_shows_no_attention_is_refused() -> None:
    causal = causal_model("llava_1_5")
    assert respondent_of(causal) is causal
    with pytest.raises(InvalidModelError, match="shows its attention"):
        respondent_of(registry.load_model(GEMMA))


@pytest.mark.parametrize(
    ("guard", "options"), [("sparse_vlm", {}), ("purmm", {"rows": "all_causal"})]
)
def test_what_needs_all_rows_is_refused(guard: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="autoregressive"):
        registry.guard(guard, masked_model("llada_v"), options)
    watcher = Everything(frozenset({0}), "all")
    with pytest.raises(InvalidRequestError, match="all rows"), DenoisingRespondent(
        masked_model("llada_v")
    ).watching(watcher):  # fmt: skip
        raise AssertionError("it is refused before")


@pytest.mark.parametrize("rows", ["answer", "last"])
def test_purmm_clusters_what_the_response_looks_at(
    model: Any, prompts: list[Embedded], rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = PurMMSettings(rows=rows).build(model)
    looked: list[Tensor] = []
    monkeypatch.setattr(guard, "located", lambda prompt, seen: looked.append(seen) or [])
    judged = guard.judge(prompts, LENGTH)
    answers = model.denoise(prompts, Generation(LENGTH, LENGTH))
    masks = model.mask_embedding.expand(BLOCK, -1)
    assert len(looked) == 2
    for prompt, ids, seen, ruling in zip(prompts, answers, looked, judged.rulings, strict=True):
        response = model.token_embeddings(ids) if rows == "answer" else masks
        expected = rows_of(model, prompt, response).mean(dim=(1, 2))
        torch.testing.assert_close(seen, expected)
        said = None if ruling.said is None else ruling.said.tolist()
        assert said == (ids.tolist() if rows == "answer" else None)


@pytest.mark.parametrize("replacement", ["zero", "mask"])
def test_removed_tokens_are_zeros_or_what_the_family_hides_with(
    model: Any, prompts: list[Embedded], replacement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = PurMMSettings(replacement=replacement).build(model)
    start = prompts[0].spans[0][0]
    monkeypatch.setattr(guard, "located", lambda prompt, seen: [start, start + 2])
    (ruling,) = guard.judge(prompts[:1], LENGTH).rulings
    expected = prompts[0].embeddings.clone()
    expected[[start, start + 2]] = 0 if replacement == "zero" else model.mask_embedding
    assert torch.equal(ruling.shown.embeddings, expected) and len(ruling.verdict.removed) == 2


def test_a_causal_model_has_no_mask_to_show() -> None:
    with pytest.raises(InvalidRequestError, match="diffusion"):
        registry.guard("purmm", causal_model("llava_1_5"), {"replacement": "mask"})
    with pytest.raises(InvalidRequestError, match="replacement is zero, mask"):
        PurMMSettings(replacement="noise").check()


def test_a_calibration_takes_the_mean_row_before_the_ratio(model: Any) -> None:
    found = calibrate(model, QUESTIONS, CalibrationSettings(1, 2, percentile=50), batch=3)
    masks = model.mask_embedding.expand(BLOCK, -1)
    expected = []
    for one in QUESTIONS:
        prompt = model.embed(model.tokenise_prompt(one.turns), model.encode_images(one.images))
        mean = rows_of(model, prompt, masks).mean(dim=2)
        expected.append(torch.from_numpy(ratios(prompt, [mean[1], mean[2]])))
    s = torch.stack(expected)
    np.testing.assert_allclose(found.mean, s.mean(dim=0), rtol=1e-4, atol=1e-5)
    assert found.derived and found.layers == (1, 2) and found.samples == len(QUESTIONS)


@pytest.mark.parametrize(
    ("depth", "layers"), [(1, [0]), (3, [1]), (4, [1, 2]), (32, list(range(11, 21)))]
)
def test_the_search_for_detection_layers_begins_in_the_middle(
    depth: int, layers: list[int]
) -> None:
    assert CalibrationSettings().layers(depth, derived=True) == layers


def test_what_is_flagged_is_denoised_with_its_tokens_hidden(
    model: Any, prompts: list[Embedded]
) -> None:
    clean = calibrate(model, QUESTIONS, CalibrationSettings(1, 2, tau=0.01))
    guard = CleanSight(model, replace(clean, threshold=-1.0))
    judged = guard.judge(prompts, LENGTH)
    for prompt, ruling, question in zip(prompts, judged.rulings, QUESTIONS, strict=False):
        assert ruling.verdict.flagged and ruling.hidden
        columns = torch.zeros(len(prompt.embeddings), dtype=torch.bool)
        columns[list(ruling.hidden)] = True
        with model.hiding(columns, 2):
            (ids,) = model.denoise([prompt], Generation(LENGTH, LENGTH))
        (guarded,) = guard.answer([question], LENGTH)
        assert guarded.text == model.text(ids)
