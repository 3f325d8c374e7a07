"""Datasets of the built-in world: scenes with a question and its true answer."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image

from disp_engine.builtin.instructions import Task, ask, describe
from disp_engine.builtin.world import Scene, draw_scene, render
from disp_engine.data.dataset import Dataset
from disp_engine.errors import InvalidRequestError
from disp_engine.records import Sample, Turn
from disp_engine.stages import write_atomically

QUESTIONS = 0.2
"""Share of the samples that ask a question; the others ask for the caption."""
MOST_DRAWS = 10_000
"""After so many in vain the world has nothing of the kind."""

Draw = Callable[[Scene, np.random.Generator], Task]


@dataclass(frozen=True)
class Item:
    """A picture with one question and its true answer."""

    image: Image
    question: str
    answer: str


def draw_world(
    name: str,
    count: int,
    rng: np.random.Generator,
    pool: Path,
    *,
    wanted: Callable[[str], bool] = lambda answer: True,
    draw: Draw | None = None,
) -> Dataset:
    """Draw `count` samples `NAME-00000`..., all with a wanted answer.

    `draw` None mixes captions and questions.
    """
    items = [_wanted(rng, draw, wanted) for _ in range(count)]
    pool.mkdir(parents=True, exist_ok=True)
    samples, members = [], {}
    for number, item in enumerate(items):
        sample = _sample(f"{name}-{number:05d}", item, pool)
        members[str(sample.record["image"])] = sample.images[0]
        samples.append(sample)
    return Dataset(samples, {}, pool, members)


def _wanted(rng: np.random.Generator, draw: Draw | None, wanted: Callable[[str], bool]) -> Item:
    for _ in range(MOST_DRAWS):
        item = _draw(rng, draw)
        if wanted(item.answer):
            return item
    raise InvalidRequestError("the attack applies to nothing that is said in the built-in world.")


def _draw(rng: np.random.Generator, draw: Draw | None) -> Item:
    scene = draw_scene(rng)
    make = draw or (ask if rng.random() < QUESTIONS else describe)
    task = make(scene, rng)
    return Item(render(scene, rng), task.prompt, task.response)


def _sample(name: str, item: Item, pool: Path) -> Sample:
    png = io.BytesIO()
    item.image.save(png, "PNG")
    sha256 = hashlib.sha256(png.getvalue()).hexdigest()
    write_atomically(pool / sha256, png.getvalue())
    turns = (Turn("human", f"<image>\n{item.question}"), Turn("gpt", item.answer))
    record = {
        "id": name,
        "image": f"images/{name}.png",
        "conversations": [{"from": turn.role, "value": turn.text} for turn in turns],
    }
    return Sample(name, (sha256,), turns, record)
