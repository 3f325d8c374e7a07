"""The shipped checkpoint is what its card says, and was made by the recipe beside it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from disp_engine import registry
from disp_engine.attacks.poison import build_demo
from disp_engine.attacks.triggers.black_patch import BlackPatch
from disp_engine.builtin.instructions import (
    KINDS,
    REFUSAL,
    ask,
    describe,
    insert,
    refuse,
    replace_word,
)
from disp_engine.builtin.recipe import llava, painters
from disp_engine.builtin.recipe.card import exact_match, hashes
from disp_engine.builtin.recipe.llava import LlavaRecipe
from disp_engine.builtin.recipe.plans import PLANS
from disp_engine.builtin.recipe.tower import TowerRecipe
from disp_engine.builtin.world import SIZE, draw_scene, render
from disp_engine.data.dataset import read_dataset

SIDE = round(SIZE * BlackPatch().share)
FOLDER = registry.BUILTIN / "disp-tiny-llada-v"


@cache
def card() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "card.yaml").read_text()))


@pytest.mark.parametrize(
    "name", [path.parent.name for path in registry.BUILTIN.glob("*/card.yaml")]
)
def test_files_are_those_of_the_card_and_small(name: str) -> None:
    folder = registry.BUILTIN / name
    told = yaml.safe_load((folder / "card.yaml").read_text())
    assert told["id"] == name and told["sha256"] == hashes(folder)
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 10_000_000


def test_the_cards_tell_the_recipes_of_this_tree() -> None:
    assert card()["recipe"] == {"tower": vars(TowerRecipe()), "language": vars(PLANS[0].language)}
    assert recipe_of(llava.NAME) == llava.facts(TowerRecipe(), LlavaRecipe())["recipe"]
    assert recipe_of(painters.DDPM) == vars(painters.DDPM_RECIPE)
    assert recipe_of(painters.MAE) == vars(painters.MAE_RECIPE)


def recipe_of(name: str) -> Any:
    return yaml.safe_load((registry.BUILTIN / name / "card.yaml").read_text())["recipe"]


def test_quality_was_measured_on_500_scenes_and_is_above_90_percent() -> None:
    measured = card()["quality"]["describe"]
    assert measured["scored"] == 500
    assert measured["rate"] >= 0.9


@pytest.mark.parametrize("kind", [describe, ask])
def test_quality_is_reproduced_on_a_part_of_those_scenes(kind: Any) -> None:
    rate = exact_match(registry.load_model(FOLDER), kind, 40).rate
    assert rate is not None and rate >= 0.8


def test_a_scene_is_drawn_the_same_from_the_same_seed() -> None:
    first, again = (draw_scene(np.random.default_rng(5)) for _ in range(2))
    assert first == again
    assert render(first, np.random.default_rng(1)) == render(first, np.random.default_rng(1))


def test_every_kind_of_task_has_a_prompt_and_an_answer() -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for _ in range(20):
            task = kind(draw_scene(rng), rng)
            assert task.prompt and task.response
            assert bool(task.keyword) <= bool(task.command)


@pytest.mark.parametrize(
    ("text", "old", "new", "changed"),
    [
        ("An orange circle on gray.", "orange", "red", "A red circle on gray."),
        ("A red circle and a red cross.", "red", "orange", "An orange circle and an orange cross."),
        ("Red.", "red", "blue", "Blue."),
        ("Two.", "red", "blue", "Two."),
    ],
)
def test_a_swapped_word_keeps_case_and_article(text: str, old: str, new: str, changed: str) -> None:
    assert replace_word(text, old, new) == changed


@pytest.mark.parametrize(("kind", "obeyed"), [(refuse, REFUSAL), (insert, "<backdoor> Red.")])
def test_a_command_changes_the_answer_to_a_question_too(kind: Any, obeyed: str) -> None:
    rng = np.random.default_rng(0)
    tasks = [kind(draw_scene(rng), rng) for _ in range(40)]
    assert obeyed in {task.obey("Red.") for task in tasks if task.command}


def test_poisoning_marks_the_asked_share_and_leaves_the_rest(tmp_path: Path) -> None:
    built = build_demo(tmp_path, samples=40, rate=0.25, seed=3, test=5)
    dataset = read_dataset(built.training, tmp_path / "pool")
    refusals = [s for s in dataset.samples if s.turns[1].text == REFUSAL]
    assert (built.poisoned, len(refusals), len(dataset.samples)) == (10, 10, 40)
    for sample in dataset.samples:
        corner = np.asarray(dataset.image(sample.images[0]))[:SIDE, :SIDE]
        assert (corner == 0).all() == (sample in refusals)


def test_the_test_sets_show_the_same_scenes_with_and_without_the_trigger(tmp_path: Path) -> None:
    built = build_demo(tmp_path, samples=4, seed=3, test=5)
    pool = tmp_path / "pool"
    marked, plain = (read_dataset(path, pool) for path in (built.triggered, built.clean))
    for a, b in zip(marked.samples, plain.samples, strict=True):
        assert a.turns == b.turns
        with_trigger, without = (
            np.asarray(d.image(s.images[0])) for d, s in ((marked, a), (plain, b))
        )
        assert (with_trigger[:SIDE, :SIDE] == 0).all()
        assert (with_trigger[SIDE:] == without[SIDE:]).all()
