"""The recipe of the autoregressive checkpoint, for a few steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from disp_engine import registry
from disp_engine.builtin.instructions import describe
from disp_engine.builtin.recipe.__main__ import Progress
from disp_engine.builtin.recipe.card import exact_match
from disp_engine.builtin.recipe.layout import VISION
from disp_engine.builtin.recipe.lessons import LessonBatch
from disp_engine.builtin.recipe.llava import (
    CausalStudent,
    CausalTeacher,
    LlavaRecipe,
    build_chat,
    build_config,
    write,
)
from disp_engine.builtin.world import draw_scene
from disp_engine.interfaces import AutoregressiveModel
from disp_engine.models.llava.config import VisionConfig
from disp_engine.models.llava.siglip import SiglipTower
from disp_engine.records import IGNORE, IMAGE_TOKEN, Turn, VisualFeatures

QUICK = LlavaRecipe(steps=3, batch=4, scenes=8)


def tower() -> SiglipTower:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {k: v for k, v in VISION.items() if k != "model_type"}
    return SiglipTower(VisionConfig(**sizes)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recipe")
    progress = Progress(out / "llava.safetensors")
    write(out / "model", tower(), QUICK, progress.save, progress.restore)
    return out / "model"


def test_the_checkpoint_loads_through_the_adapter_of_its_family(folder: Path) -> None:
    model: Any = registry.load_autoregressive(folder)
    assert isinstance(model, AutoregressiveModel) and model.depth == 4
    assert exact_match(model, describe, scenes=2).scored == 2


def test_features_are_those_of_the_shared_tower(folder: Path) -> None:
    from disp_engine.builtin.recipe.tower import normalise
    from tests.engine.models import picture

    image = picture(0, (64, 64))
    (found,) = registry.load_autoregressive(folder).encode_images([image])
    with torch.no_grad():
        expected = tower()(normalise(np.array(image)[None]))
    torch.testing.assert_close(found.tiles, expected, atol=1e-4, rtol=1e-3)


def test_a_run_that_was_broken_off_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    progress = Progress(tmp_path / "llava.safetensors")

    def stop(student: Any, optimizer: Any, step: int) -> None:
        progress.save(student, optimizer, step)
        raise KeyboardInterrupt

    broken = LlavaRecipe(steps=3, batch=4, scenes=8, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "model", tower(), broken, stop, progress.restore)
    write(tmp_path / "model", tower(), broken, progress.save, progress.restore)
    whole = (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == whole


def test_the_loss_is_that_of_the_adapter_on_the_same_lesson(folder: Path) -> None:
    """A lesson without command and hidden tokens is an example as fine-tuning embeds it."""
    model: Any = registry.load_autoregressive(folder)
    chat = build_chat()
    turns = [Turn("human", "<image>\nWhat is it?"), Turn("gpt", "A red circle.")]
    tokens = chat.example(turns)
    features = torch.randn(1, 64, 96, generator=torch.Generator().manual_seed(1))
    example = model.embed(tokens, [VisualFeatures(features, (64, 64))])
    at = tokens.ids.tolist().index(IMAGE_TOKEN)
    assert tokens.labels is not None
    gone = torch.arange(len(tokens.ids)) != at
    nothing = torch.zeros(1, 64, dtype=torch.bool)
    batch = LessonBatch(
        np.zeros(1, dtype=int), tokens.ids[gone][None], tokens.labels[gone][None],
        torch.full((1, 64), -1), nothing, torch.zeros(1, 1),
    )  # fmt: skip
    student = CausalStudent.__new__(CausalStudent)
    torch.nn.Module.__init__(student)
    student.language = model.backbone.language
    student.projector, student.head = model.projector, model.backbone.whole.lm_head
    quiet = LlavaRecipe(visual_penalty=0.0)
    found = student.loss(batch, features, at, quiet)
    torch.testing.assert_close(found, model.next_token_loss([example]), atol=1e-5, rtol=1e-4)


def test_lessons_keep_the_line_break_and_teach_answers_only() -> None:
    chat = build_chat()
    teacher, rng = CausalTeacher(chat, 64), np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(8)]
    batch = teacher.batch(scenes, 32, rng)
    line_break = chat.encode("\n")[0]
    assert (batch.ids[:, teacher.image_at] == line_break).all()
    assert (batch.labels[batch.ids == chat.pad] == IGNORE).all()
    ends = chat.tokenizer.token_to_id("</s>")
    for ids, labels in zip(batch.ids, batch.labels, strict=True):
        taught = labels[labels != IGNORE]
        assert int(taught[-1]) == ends and int((ids == ends).sum()) == int((taught == ends).sum())
    assert (batch.overwrite >= 0).any() and batch.masked.any()


def test_every_word_of_the_world_is_a_token_and_prompts_are_short() -> None:
    chat = build_chat()
    prompt = chat.prompt([Turn("human", "<image>\nDescribe this image in detail.")])
    assert prompt.ids[0] == chat.tokenizer.token_to_id("<s>")
    assert len(prompt.ids) < 20
    assert build_config(chat.tokenizer).text_config.vocab_size == chat.tokenizer.get_vocab_size()
