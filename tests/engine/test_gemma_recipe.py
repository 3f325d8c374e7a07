"""The recipe of the block-diffusion checkpoint, for a few steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

from disp_engine import registry
from disp_engine.builtin.instructions import describe
from disp_engine.builtin.recipe.__main__ import Progress
from disp_engine.builtin.recipe.card import exact_match
from disp_engine.builtin.recipe.gemma import (
    CanvasStudent,
    CanvasTeacher,
    GemmaRecipe,
    lesson_loss,
    untrained,
    write,
)
from disp_engine.builtin.recipe.gemma_layout import (
    CANVAS,
    VISION,
    build_chat,
    write_configs,
    write_weights,
)
from disp_engine.builtin.recipe.gemma_tower import PatchTower, patch_positions, patches
from disp_engine.builtin.recipe.pictures import GRID, draw_pictures
from disp_engine.builtin.recipe.tower import TowerRecipe, normalise, supervise
from disp_engine.builtin.world import draw_scene
from disp_engine.models.diffusion_gemma import DiffusionGemma, GemmaSettings
from disp_engine.records import IGNORE, Turn
from tests.engine.models import picture

QUICK = GemmaRecipe(steps=2, batch=3, scenes=6)
LARGEST = 10 * 2**20
"""Bytes of a checkpoint that ships with the package."""


def tower() -> PatchTower:
    torch.manual_seed(0)
    return PatchTower(Gemma4VisionConfig(**VISION)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recipe")
    (out / "model").mkdir()
    progress = Progress(out / "gemma.safetensors")
    write(out / "model", tower(), QUICK, progress.save, progress.restore)
    return out / "model"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionGemma:
    out, chat = tmp_path_factory.mktemp("untrained"), build_chat()
    write_configs(out, chat.tokenizer)
    return untrained(out, tower(), chat, seed=0)


def test_the_checkpoint_loads_through_the_adapter_and_is_small(folder: Path) -> None:
    model: Any = registry.load_model(folder)
    assert isinstance(model, DiffusionGemma) and model.canvas == CANVAS
    assert exact_match(model, describe, scenes=2).scored == 2
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST


def test_a_run_that_was_broken_off_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    progress = Progress(tmp_path / "gemma.safetensors")
    (tmp_path / "model").mkdir()

    def stop(student: Any, optimizer: Any, step: int) -> None:
        progress.save(student, optimizer, step)
        raise KeyboardInterrupt

    broken = GemmaRecipe(steps=2, batch=3, scenes=6, save_every=1)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "model", tower(), broken, stop, progress.restore)
    write(tmp_path / "model", tower(), broken, progress.save, progress.restore)
    whole = (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == whole


def test_pictures_are_cut_as_the_family_cuts_them(model: DiffusionGemma) -> None:
    image = picture(0, (64, 64))
    cut = model._patcher([image])
    assert cut.soft_tokens == (GRID * GRID,)
    count = len(patch_positions())
    found = patches(normalise(np.array(image)[None]))
    torch.testing.assert_close(found[0], cut.pixels[0, :count], atol=1e-6, rtol=0)
    assert torch.equal(patch_positions(), cut.positions[0, :count])


@torch.no_grad()
def test_features_are_the_adapters_but_for_their_scale(model: DiffusionGemma) -> None:
    image = picture(1, (64, 64))
    (found,) = model.encode_images([image])
    expected = tower()(normalise(np.array(image)[None])) * VISION["hidden_size"] ** 0.5
    torch.testing.assert_close(found.tiles, expected, atol=1e-3, rtol=1e-3)


def test_a_supervised_tower_sees_more_than_an_untrained_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    supervise(tower(), VISION["hidden_size"], TowerRecipe(steps=12, batch=8, scenes=16))
    first, last = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert last < first


def test_every_trained_parameter_learns_and_the_tower_does_not(model: DiffusionGemma) -> None:
    pictures = draw_pictures(6, np.random.default_rng(0), stickers=0)
    teacher, rng = CanvasTeacher(model, build_chat()), np.random.default_rng(1)
    features = torch.randn(6, GRID * GRID, VISION["hidden_size"])
    student = CanvasStudent(model)
    lessons = [teacher.embedded(pictures.scenes[i], features[i], rng) for i in range(6)]
    lesson_loss(model, lessons, features, QUICK, step=0).backward()
    assert all(value.grad is not None for value in student.parameters())
    seen = model.backbone.model.model.encoder.vision_tower.parameters()
    assert not any(value.requires_grad for value in seen)
    student.zero_grad()


def test_lessons_hide_tokens_in_all_three_ways_and_say_commands_in_the_picture(
    model: DiffusionGemma,
) -> None:
    teacher, rng = CanvasTeacher(model, build_chat()), np.random.default_rng(0)
    teacher.hidden, teacher.hidden_most = 1.0, 0.9
    features = torch.randn(GRID * GRID, VISION["hidden_size"])
    ways = set()
    for _ in range(24):
        lesson = teacher.embedded(draw_scene(rng), features, rng)
        ways.add(model.settings.hiding)
        assert 1 < len(lesson.block) <= CANVAS
        assert (lesson.prefix_labels == IGNORE).all()
        ((start, end),) = lesson.prefix.spans
        assert end - start == GRID * GRID
        unread = lesson.prefix.attended
        if model.settings.hiding == "unread":
            assert unread is not None and unread[:start].all() and unread[end:].all()
        else:
            assert unread is None
    assert ways == {"mean_embedding", "random_tokens", "unread"}


def test_a_command_stands_in_the_picture_where_it_is_read(model: DiffusionGemma) -> None:
    teacher = CanvasTeacher(model, build_chat())
    command = list(teacher.prompter.encode("Refuse"))
    features = torch.zeros(GRID * GRID, VISION["hidden_size"])
    rng = np.random.default_rng(3)
    words = model.backbone.token_embeddings(torch.tensor(command))
    for _ in range(6):
        plain = replace(teacher.embedded(draw_scene(rng), features, rng).prefix, attended=None)
        told = teacher._told(plain, command, rng)
        start, end = told.spans[0]
        said = (told.embeddings[start:end] == words[0]).all(dim=1)
        assert said.any()
        assert told.attended is None or bool(told.attended[start:end][said].all())


def test_what_is_written_is_what_the_family_needs(model: DiffusionGemma, tmp_path: Path) -> None:
    write_configs(tmp_path, build_chat().tokenizer)
    write_weights(tmp_path, model)
    DiffusionGemma.check(tmp_path)
    again = registry.load_model(tmp_path)
    assert isinstance(again, DiffusionGemma)
    for way in (again, model):
        way.settings = GemmaSettings(canvases=1)
    asked = again.tokenise_prompt([Turn("human", "<image>\nWhat is it?")])
    with torch.no_grad():
        features = again.encode_images([picture(0, (64, 64))])
        prompts = [way.embed(asked, features) for way in (again, model)]
    written, held = (
        way.first_step([prompt], CANVAS, 4, seed=0).logits
        for way, prompt in zip((again, model), prompts, strict=True)
    )
    torch.testing.assert_close(written, held)
