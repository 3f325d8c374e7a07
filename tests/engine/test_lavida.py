"""The LaViDa adapter on the recorded checkpoint."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from disp_engine.diffusion.attention import Attention, prefix_pairs
from disp_engine.diffusion.schedule import Schedule
from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.interfaces import DiffusionModel, Generation
from disp_engine.models.lavida import Lavida
from disp_engine.models.lavida.prompt import one_pair
from disp_engine.records import IGNORE, Embedded, Turn
from disp_engine.registry import card_defaults, load_model
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from tests.engine.models import picture
from tests.parity import compare_all

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lavida" / "anyres"
QUESTION = [Turn("human", "<image>\nWhat is it?")]
EXAMPLE = [*QUESTION, Turn("gpt", "A cat.")]


@pytest.fixture(scope="module")
def shared() -> Lavida:
    return Lavida.from_folder(FIXTURE)


@pytest.fixture
def model(shared: Lavida) -> Iterator[Lavida]:
    yield shared
    shared.attention = Attention.FULL
    shared.projector.zero_grad()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "model")
    return tmp_path / "model"


def rewrite_config(folder: Path, **keys: object) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | keys))


def prompt(model: Lavida, size: tuple[int, int] = (60, 50)) -> Embedded:
    return model.embed(model.tokenise_prompt(QUESTION), model.encode_images([picture(0, size)]))


def example(model: Lavida, answer: str = "A cat.") -> Embedded:
    turns = [*QUESTION, Turn("gpt", answer)]
    return model.embed(model.tokenise_example(turns), model.encode_images([picture(0)]))


def test_every_recorded_tensor_of_the_official_code_is_reproduced() -> None:
    result = compare_all(FIXTURE)
    assert [case for case in result["cases"] if not case["holds"]] == []
    assert len(result["cases"]) > len(load_file(FIXTURE / "expected.safetensors"))


def test_the_registry_finds_the_family_and_its_mask_ratio() -> None:
    found = load_model(FIXTURE)
    assert isinstance(found, Lavida) and isinstance(found, DiffusionModel)
    assert card_defaults(FIXTURE)["mask_ratio"] == 0.5


def test_a_picture_as_a_list_is_pooled_and_as_a_tensor_is_not(model: Lavida) -> None:
    tokens = model.tokenise_prompt([Turn("human", "<image> <image>\nWhich?")])
    pictures = [picture(0, (70, 70)), picture(1, (70, 70))]
    as_tensor = model.embed(tokens, model.encode_images(pictures, as_list=False))
    assert [end - start for start, end in as_tensor.spans] == [25, 25]
    model.config = replace(config := model.config, image_aspect_ratio="pad")
    try:
        as_list = model.embed(tokens, model.encode_images(pictures))
    finally:
        model.config = config
    assert [end - start for start, end in as_list.spans] == [3 * 3 + 1] * 2
    newline = as_list.embeddings[as_list.spans[0][1] - 1]
    assert model.newline is not None and torch.equal(newline, model.newline)


def test_the_answer_and_its_end_are_learned_and_no_header(model: Lavida) -> None:
    tokens = model.tokenise_example(EXAMPLE)
    assert tokens.labels is not None
    learned = tokens.ids[tokens.labels != IGNORE]
    decode = model.prompter.tokenizer.decode
    assert decode(learned.tolist(), skip_special_tokens=False) == "A cat.<|eot_id|>"


def test_an_end_of_text_is_learned_wherever_it_stands(model: Lavida) -> None:
    turns = [Turn("human", "Stop <|endoftext|> here?"), Turn("gpt", "Yes")]
    tokens = model.tokenise_example(turns)
    assert tokens.labels is not None
    assert tokens.labels[tokens.ids == model.prompter.pad].tolist() == [model.prompter.pad]


def test_one_pair_is_kept_with_all_pictures() -> None:
    turns = [
        Turn("human", "<image>\nA?"),
        Turn("gpt", "a"),
        Turn("human", "B?"),
        Turn("gpt", "b"),
    ]
    seen = set()
    for number in range(20):
        varied = [*turns[:3], Turn("gpt", f"b{number}")]
        question, answer = one_pair(varied)
        assert one_pair(varied) == [question, answer]
        assert question.text.count("<image>") == 1
        assert (question.text, answer.text) in {
            ("<image>\nA?", "a"),
            ("<image>\nB?", f"b{number}"),
        }
        seen.add(question.text)
    assert seen == {"<image>\nA?", "<image>\nB?"}


def test_each_target_is_masked_in_exactly_one_copy(model: Lavida) -> None:
    collated = model.collate([example(model), example(model, "A cat on a mat.")], extra_pads=3)
    u = torch.rand(collated.labels.shape, generator=torch.Generator().manual_seed(0))
    masked = model.masking(collated.labels, torch.tensor([0.2, 0.7]), u).masked
    drawn, left = masked.chunk(2)
    assert torch.equal(drawn ^ left, collated.labels != IGNORE)
    assert not (drawn & left).any()
    assert (collated.labels == model.prompter.pad).sum(1).tolist() == [3 + len(" on a mat"), 3]


def test_a_reserved_token_is_never_masked(model: Lavida) -> None:
    collated = model.collate([example(model, "A <|reserved_token_1|> cat.")])
    reserved = collated.labels == model.prompter.never_masked
    assert reserved.sum() == 1
    masked = model.masking(collated.labels, torch.tensor([0.5]), torch.rand(reserved.shape)).masked
    assert not masked[reserved.repeat(2, 1)].any()


def test_the_loss_is_the_plain_mean_whatever_the_time(model: Lavida) -> None:
    """With everything masked in one copy, none is in the other, and t drops out."""
    collated = model.collate([example(model)])
    u = torch.zeros(collated.labels.shape)
    low, high = (model.training_loss([example(model)], torch.tensor([t]), u) for t in (0.1, 0.9))
    assert low.item() == pytest.approx(high.item(), abs=1e-6)
    masking = model.masking(collated.labels, torch.tensor([0.5]), u)
    hidden = model.hidden(collated, masking)
    targets = collated.labels[collated.labels != IGNORE]
    logs = model.language.logits(hidden).log_softmax(-1)
    want = -logs.gather(1, targets[:, None]).mean()
    assert low.item() == pytest.approx(want.item(), abs=1e-5)


def test_noise_and_padding_come_from_the_generator_alone(model: Lavida) -> None:
    batch = [example(model)]
    losses = [
        model.noised_loss(batch, torch.Generator().manual_seed(seed)).item() for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_only_the_projector_learns(model: Lavida) -> None:
    model.noised_loss([example(model)], torch.Generator().manual_seed(0)).backward()
    assert all(value.grad is not None for value in model.projector.parameters())
    frozen = (*model.language.parameters(), *model.tower.parameters())
    assert not any(value.requires_grad for value in frozen)


def test_in_prefix_mode_a_prompt_does_not_see_its_response(model: Lavida) -> None:
    """Its hidden states are the same before any answer, and those of the answer are not."""
    base = prompt(model).embeddings.detach()
    length, width = base.shape
    keys = torch.ones(1, length + 4, dtype=torch.bool)
    pairs = prefix_pairs(torch.tensor([length]), keys)
    answers = [torch.cat([base, torch.full((4, width), value)])[None] for value in (0.0, 1.0)]
    first, second = (model.language(answer, pairs)[0] for answer in answers)
    assert torch.equal(first[:length], second[:length])
    assert not torch.equal(first[length:], second[length:])
    rows = torch.arange(length, length + 4)[None]
    model.attention = Attention.PREFIX
    want = model.language.logits(first[length:])
    torch.testing.assert_close(model.logits(answers[0], rows)[0], want, rtol=0, atol=1e-5)
    model.attention = Attention.FULL
    full = model.logits(answers[0], rows)[0]
    assert not torch.allclose(full, want, atol=1e-3)


@pytest.mark.parametrize("attention", list(Attention))
def test_a_batch_of_pictures_is_denoised_as_each_is_alone(
    model: Lavida, attention: Attention
) -> None:
    model.attention = attention
    prompts = [prompt(model, size) for size in ((60, 50), (90, 50))]
    settings = Generation(length=8, block_length=4, stop=())
    together = model.denoise(prompts, settings)
    alone = [model.denoise([one], settings)[0] for one in prompts]
    assert [ids.tolist() for ids in together] == [ids.tolist() for ids in alone]


@pytest.mark.parametrize("attention", list(Attention))
def test_saliency_scores_every_pooled_token(model: Lavida, attention: Attention) -> None:
    model.attention = attention
    settings = SaliencySettings(probes=2, rows=4, length=4)
    together = estimate_saliency(model, [prompt(model), prompt(model, (90, 50))], settings)
    assert len(together[0].scores) == int(prompt(model).visual().sum())
    assert together[0].scores.gt(0).all()
    alone = replace(settings, score="sufficiency")
    found = estimate_saliency(model, [prompt(model), prompt(model, (90, 50))], alone)
    assert len(found[1].scores) == int(prompt(model, (90, 50)).visual().sum())
    assert all(s.scores.isfinite().all() for s in found)


def test_rotation_is_in_float32_in_bfloat16(model: Lavida) -> None:
    """So that a rotation by a large angle costs no more than rounding once."""
    small = Lavida.from_folder(FIXTURE, dtype=torch.bfloat16)
    assert small.dtype == torch.bfloat16
    base = prompt(small).embeddings.detach()[None]
    kept = small.language(base)
    small.language.rope_full_precision = False
    assert not torch.equal(small.language(base), kept)
    exact = model.language(base.float())
    assert (kept.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"alibi": True}, "alibi True is not supported in LaViDa"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type 'perceiver' is not supported"),
        ({"mm_spatial_pool_mode": "max"}, "mm_spatial_pool_mode 'max'"),
        ({"n_heads": 5}, "n_heads must divide d_model"),
        ({"d_model": None}, "d_model must be a positive integer"),
        ({"prefix_lm": True}, "key prefix_lm is unknown"),
    ],
)
def test_a_config_that_cannot_be_used_names_the_key(
    folder: Path, keys: dict[str, object], message: str
) -> None:
    rewrite_config(folder, **keys)
    with pytest.raises(InvalidModelError, match=message):
        Lavida.from_folder(folder)


def test_the_prefix_mode_is_chosen_by_name_and_is_part_of_the_revision() -> None:
    plain = load_model(FIXTURE)
    named = load_model(FIXTURE, options={"attention": "prefix"})
    assert isinstance(named, Lavida) and named.attention == Attention.PREFIX
    assert named.revision != plain.revision
    asked = prompt(named)
    embeddings = torch.cat([asked.embeddings, named.mask_embedding.expand(4, -1)])[None]
    rows = len(asked.embeddings) + torch.arange(4)[None]
    with torch.no_grad():
        assert not torch.allclose(named.logits(embeddings, rows), plain.logits(embeddings, rows))


def test_schedule_and_remasking_of_the_settings_stand_in_place_of_the_callers() -> None:
    options = {"schedule": "shift", "shift": 0.33, "remasking": "margin"}
    named = load_model(FIXTURE, options=options)
    plain = load_model(FIXTURE)
    few = Generation(length=16, block_length=16, steps=8, stop=())
    asked = replace(few, schedule=Schedule("shift", 0.33), remasking="margin")
    (found,) = named.denoise([prompt(named)], few)
    (wanted,) = plain.denoise([prompt(plain)], asked)
    (other,) = plain.denoise([prompt(plain)], few)
    assert found.tolist() == wanted.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "causal"}, "attention must be one of full, prefix"),
        ({"schedule": "steep"}, "schedule must be one of uniform, shift"),
        ({"remasking": "random"}, "remasking must be one of low_confidence, margin, entropy"),
        ({"shift": 0}, "shift must be a positive number"),
        ({"steps": 3}, "steps"),
    ],
)
def test_settings_that_there_are_not_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"model_options: .*{message}"):
        load_model(FIXTURE, options=options)
