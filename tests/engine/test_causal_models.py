"""The autoregressive families against transformers' own classes on random tiny models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from disp_engine import registry
from disp_engine.errors import InvalidModelError, SampleError
from disp_engine.interfaces import AutoregressiveModel, DiffusionModel
from disp_engine.models.export import export_checkpoint
from disp_engine.models.inspection import inspect_model, verify_model
from disp_engine.records import IGNORE, Embedded, Grid, Turn
from tests.engine.causal_models import FAMILIES, causal_model, folder_of, generated, library
from tests.engine.models import FIXTURE, picture

QUESTIONS = ("<image>\nWhat?", "<image>\nWhat is it that is shown here?")
SIZES = ((30, 24), (40, 60))
LENGTH = 6


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def prompts(model: AutoregressiveModel, count: int = 2) -> list[Embedded]:
    images = [picture(number, size) for number, size in enumerate(SIZES[:count])]
    return [
        model.embed(model.tokenise_prompt([Turn("human", text)]), [shown])
        for text, shown in zip(QUESTIONS, model.encode_images(images), strict=False)
    ]


def logits_of(model: Any, shown: list[Embedded], answers: Tensor) -> Tensor:
    """Logits of each step while the given answers are read."""
    reading = model.read(shown)
    found = [reading.logits]
    for ids in answers[:, :-1].T:
        reading = model.backbone.go_on(reading, ids)
        found.append(reading.logits)
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("count", [1, 2], ids=["unpadded", "batched"])
def test_answers_and_logits_are_those_of_transformers_generate(name: str, count: int) -> None:
    model: Any = causal_model(name)
    images = [picture(number, size) for number, size in enumerate(SIZES[:count])]
    texts = [model.prompter.prompt_text([Turn("human", q)]) for q in QUESTIONS[:count]]
    answers, logits = generated(name, texts, images, LENGTH)
    shown = prompts(model, count)
    with torch.no_grad():
        found = logits_of(model, shown, answers)
    torch.testing.assert_close(found, logits, atol=2e-4, rtol=1e-3)
    said = list(model.say(model.read(shown), LENGTH))
    for step, now in enumerate(said):
        assert torch.equal(now.ids[now.alive], answers[now.alive, step])
    assert len(said) == answers.shape[1]
    assert len(set(answers.flatten().tolist())) > 1, "the answers must not be trivial"


def test_a_row_that_has_ended_stays_ended_and_the_others_go_on() -> None:
    model: Any = causal_model("llava_1_5")
    first = [int(said.ids[0]) for said in model.say(model.read(prompts(model)[:1]), LENGTH)]
    facts = model.facts
    ended = type(facts)(facts.config, facts.pictures, (first[1],), facts.files)
    model.facts = ended
    try:
        alive = [said.alive.tolist() for said in model.say(model.read(prompts(model)), LENGTH)]
    finally:
        model.facts = facts
    assert [row[0] for row in alive] == [True] + [False] * (len(alive) - 1)


def test_the_loss_is_that_of_transformers_on_the_answer(name: str) -> None:
    model, (library_model, processor) = causal_model(name), library(name)
    turns = [Turn("human", QUESTIONS[0]), Turn("gpt", "A dog.")]
    tokens, image = model.tokenise_example(turns), picture(0, SIZES[0])
    example = model.embed(tokens, model.encode_images([image]))
    text = "".join(model.prompter._pieces(turns))  # type: ignore[attr-defined]
    inputs = processor(images=[image], text=[text], return_tensors="pt")
    assert example.labels is not None
    expected = library_model(**inputs, labels=example.labels[None]).loss
    torch.testing.assert_close(model.next_token_loss([example]), expected, atol=1e-5, rtol=1e-4)
    said = model.prompter.tokenizer.decode(  # type: ignore[attr-defined]
        example.labels[example.labels != IGNORE].tolist(), skip_special_tokens=True
    )
    assert said.strip() == "A dog."


def test_a_batch_of_examples_weighs_its_tokens_alike(name: str) -> None:
    model = causal_model(name)
    batch = []
    for number, answer in enumerate(("A dog.", "It is a very long cat.")):
        turns = [Turn("human", QUESTIONS[number]), Turn("gpt", answer)]
        shown = model.encode_images([picture(number, SIZES[number])])
        batch.append(model.embed(model.tokenise_example(turns), shown))
    counts = [int((e.labels != IGNORE).sum()) for e in batch]  # type: ignore[union-attr]
    alone = [model.next_token_loss([example]) for example in batch]
    expected = sum(n * loss for n, loss in zip(counts, alone, strict=True)) / sum(counts)
    torch.testing.assert_close(model.next_token_loss(batch), expected, atol=1e-5, rtol=1e-4)


def test_only_the_projector_has_a_gradient(name: str) -> None:
    model: Any = causal_model(name)
    turns = [Turn("human", QUESTIONS[0]), Turn("gpt", "A dog.")]
    shown = model.encode_images([picture()])
    model.next_token_loss([model.embed(model.tokenise_example(turns), shown)]).backward()
    tuned = {id(p) for p in model.projector.parameters()}
    for parameter in model.backbone.whole.parameters():
        assert (parameter.grad is not None) == (id(parameter) in tuned)
    model.projector.zero_grad(set_to_none=True)


def test_every_visual_token_but_newlines_stands_in_one_tile(name: str) -> None:
    model = causal_model(name)
    for prompt in prompts(model):
        placed = [token for grid in prompt.grids for token in grid.tokens()]
        assert len(placed) == len(set(placed)), "tiles do not overlap"
        outside = set(prompt.visual().nonzero()[:, 0].tolist()) - set(placed)
        assert not set(placed) - set(prompt.visual().nonzero()[:, 0].tolist())
        if name in ("llava_next", "llava_onevision"):
            newline = model.backbone.whole.model.image_newline  # type: ignore[attr-defined]
            assert outside, "each row of the crops ends with a newline"
            for token in outside:
                assert torch.equal(prompt.embeddings[token], newline)
        else:
            assert not outside


def test_crops_of_llava_next_keep_to_themselves() -> None:
    """48 x 24 pixels are two crops of 4 x 4 tokens side by side, nothing of them padding."""
    model = causal_model("llava_next")
    (shown,) = model.encode_images([picture(0, (48, 24))])
    prompt = model.embed(model.tokenise_prompt([Turn("human", "<image>")]), [shown])
    start = prompt.spans[0][0]
    assert prompt.grids == (
        Grid(start, 4, 4, 4), Grid(start + 16, 4, 4, 9), Grid(start + 20, 4, 4, 9),
    )  # fmt: skip


def test_a_hidden_border_of_llava_next_belongs_to_no_crop() -> None:
    """48 x 48 is best for 60 x 40; of eight rows one is padding above and one below."""
    model = causal_model("llava_next")
    (shown,) = model.encode_images([picture(0, (60, 40))])
    prompt = model.embed(model.tokenise_prompt([Turn("human", "<image>")]), [shown])
    start = prompt.spans[0][0]
    assert [(g.start - start, g.rows, g.columns, g.stride) for g in prompt.grids[1:]] == [
        (16, 3, 4, 9), (20, 3, 4, 9), (16 + 3 * 9, 3, 4, 9), (20 + 3 * 9, 3, 4, 9),
    ]  # fmt: skip


def test_crops_that_are_shrunk_share_their_tokens_by_where_their_middles_lie() -> None:
    """48 x 72 pixels are six crops of 4 x 4; 12 x 8 tokens are shown as 4 x 3."""
    model = causal_model("llava_onevision")
    (shown,) = model.encode_images([picture(0, (48, 72))])
    prompt = model.embed(model.tokenise_prompt([Turn("human", "<image>")]), [shown])
    start = prompt.spans[0][0]
    assert [(g.start - start, g.rows, g.columns, g.stride) for g in prompt.grids[1:]] == [
        (16, 1, 1, 4), (17, 1, 2, 4), (20, 2, 1, 4), (21, 2, 2, 4), (28, 1, 1, 4), (29, 1, 2, 4),
    ]  # fmt: skip


def test_conversations_of_several_turns_label_every_answer() -> None:
    for name in FAMILIES:
        model: Any = causal_model(name)
        turns = [
            Turn("human", "<image>\nWhat?"), Turn("gpt", "A dog."),
            Turn("human", "Where?"), Turn("gpt", "There."),
        ]  # fmt: skip
        tokens = model.tokenise_example(turns)
        assert tokens.labels is not None
        chosen = tokens.labels[tokens.labels != IGNORE].tolist()
        text = model.prompter.tokenizer.decode(chosen, skip_special_tokens=True)
        assert text.split() == ["A", "dog.", "There."] or text.split() == ["A", "dog.There."]
        assert torch.equal(tokens.ids[tokens.labels != IGNORE], torch.tensor(chosen))


def test_a_prompt_longer_than_the_model_is_refused() -> None:
    model = causal_model("llava_1_5")
    with pytest.raises(SampleError, match="of 512 positions"):
        model.embed(model.tokenise_prompt([Turn("human", "x" * 600)]), [])


def test_a_guard_takes_no_diffusion_model() -> None:
    with pytest.raises(InvalidModelError, match="a guard needs an autoregressive model"):
        registry.load_autoregressive(FIXTURE)
    assert not isinstance(causal_model("llava_1_5"), DiffusionModel)


def test_folders_are_inspected_and_verified_as_those_of_other_families(name: str) -> None:
    found = inspect_model(folder_of(name))
    assert found.problems == ()
    assert found.parameters > 0
    assert verify_model(folder_of(name)).problems == ()


def test_a_projector_goes_out_and_comes_back(name: str, tmp_path: Path) -> None:
    model = causal_model(name)
    model.save_projector(tmp_path / "projector.safetensors")
    tensors = {k: v + 1 for k, v in model.projector.state_dict().items()}
    from safetensors.torch import save_file

    prefix = model.projector_prefix  # type: ignore[attr-defined]
    save_file({prefix + k: v for k, v in tensors.items()}, tmp_path / "moved.safetensors")
    export_checkpoint(folder_of(name), tmp_path / "moved.safetensors", tmp_path / "out")
    again = registry.load_autoregressive(tmp_path / "out")
    for key, value in again.projector.state_dict().items():
        torch.testing.assert_close(value, tensors[key])


@pytest.mark.parametrize(
    ("where", "key", "value", "why"),
    [
        ((), "auto_map", {"AutoModel": "x.Y"}, "remote code"),
        (("text_config",), "surprise", 1, "surprise is unknown"),
        (("vision_config",), "model_type", "pixtral", "must be clip_vision_model"),
        (("text_config",), "_attn_implementation", "hub/kernel", "remote code"),
        ((), "vision_feature_layer", [1, 2], "one layer"),
        ((), "vision_feature_select_strategy", "full", "must be default"),
        (("text_config",), "hidden_size", "wide", "hidden_size"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(
    tmp_path: Path, where: tuple[str, ...], key: str, value: Any, why: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of("llava_1_5"), folder)
    raw = json.loads((folder / "config.json").read_text())
    part = raw
    for step in where:
        part = part[step]
    part[key] = value
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InvalidModelError, match=why):
        registry.load_autoregressive(folder)


@pytest.mark.parametrize(
    ("name", "part", "told"),
    [
        ("llava_next", None, {"use_image_newline_parameter": True}),
        ("llava_onevision", None, {"use_image_newline_parameter": True}),
        ("internvl", "vision_config", {"dropout": 0.0, "initializer_factor": 0.1}),
        ("qwen2_vl", None, {"vision_token_id": 3}),
        ("qwen2_vl", "vision_config", {"in_chans": 3, "spatial_patch_size": 14}),
    ],
)
def test_what_the_public_folders_tell_without_effect_is_let_pass(
    name: str, part: str | None, told: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of(name), folder)
    raw = json.loads((folder / "config.json").read_text())
    (raw if part is None else raw[part]).update(told)
    (folder / "config.json").write_text(json.dumps(raw))
    registry.load_autoregressive(folder)


def test_a_layout_of_crops_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of("llava_onevision"), folder)
    raw = json.loads((folder / "config.json").read_text())
    raw["vision_aspect_ratio"] = "pad"
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InvalidModelError, match="must be anyres_max_N"):
        registry.load_autoregressive(folder)


def test_a_tokenizer_with_another_image_token_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of("llava_1_5"), folder)
    raw = json.loads((folder / "config.json").read_text())
    raw["image_token_index"] = 7
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InvalidModelError, match="must have the id 7"):
        registry.load_autoregressive(folder)
