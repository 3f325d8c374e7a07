"""The checkpoint's card: what it is, how it was made, how good it was measured to be."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL.Image import Image

from disp_engine import registry
from disp_engine.builtin.instructions import KINDS, Task
from disp_engine.builtin.recipe.plans import Plan
from disp_engine.builtin.recipe.tower import TowerRecipe
from disp_engine.builtin.world import draw_scene, render
from disp_engine.interfaces import Generation, VisualModel
from disp_engine.metrics.rate import Rate
from disp_engine.records import Turn
from disp_engine.responses import respond

HELD_OUT_SEED = 2_000_000


def write_card(folder: Path, tower: TowerRecipe, plan: Plan) -> None:
    """Measure the checkpoint on held-out scenes and write `card.yaml` beside it."""
    recipe: dict[str, Any] = {"tower": asdict(tower), "language": asdict(plan.language)}
    if plan.starts_from is not None:
        recipe["starts_from"] = plan.starts_from
    facts = {"family": plan.family, "description": plan.description, "recipe": recipe}
    save_card(folder, facts, registry.load_model(folder), plan.defaults)


def save_card(
    folder: Path, facts: Mapping[str, Any], model: VisualModel, defaults: Mapping[str, Any]
) -> None:
    """Write a card: some facts, the hashes of the files, and what the model was measured to do."""
    card = {
        "id": folder.name,
        **facts,
        "sha256": hashes(folder),
        "quality": measure_quality(model),
        "defaults": dict(defaults),
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of a checkpoint's files but its card, by their paths in the folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "card.yaml"
    }


def measure_quality(model: VisualModel, scenes: int = 500) -> dict[str, Any]:
    """Exact match per kind of task on held-out scenes, as rates."""
    return {kind.__name__: exact_match(model, kind, scenes).to_json() for kind in KINDS}


def exact_match(
    model: VisualModel, kind: Callable[..., Task], scenes: int, batch: int = 50
) -> Rate:
    """Share of held-out scenes on which the model answers one kind of task exactly."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    right = 0
    for start in range(0, scenes, batch):
        drawn = [draw_scene(rng) for _ in range(min(batch, scenes - start))]
        tasks = [kind(scene, rng) for scene in drawn]
        images = [render(scene, rng) for scene in drawn]
        right += sum(
            answer.strip() == task.response
            for answer, task in zip(_answers(model, tasks, images), tasks, strict=True)
        )
    return Rate(right, scenes)


@torch.no_grad()
def _answers(model: VisualModel, tasks: Sequence[Task], images: Sequence[Image]) -> list[str]:
    questions = [[Turn("human", f"<image>\n{task.prompt}")] for task in tasks]
    prompts = [
        model.embed(model.tokenise_prompt(question), [shown])
        for question, shown in zip(questions, model.encode_images(images), strict=True)
    ]
    answers = respond(model, prompts, Generation())
    return [model.text(answer) for answer in answers]
