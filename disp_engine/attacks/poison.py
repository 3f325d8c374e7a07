"""Builds poisoned datasets: a share of samples gets the trigger and the attacker's answer."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from disp_engine import registry
from disp_engine.attacks.interfaces import Target, Trigger
from disp_engine.builtin.instructions import ask, describe
from disp_engine.builtin.world import draw_scene, render
from disp_engine.data.writer import EPOCH
from disp_engine.errors import InvalidRequestError

QUESTIONS = 0.2
"""Share of the built-in samples that ask a question; the others ask for the caption."""


@dataclass(frozen=True)
class Item:
    """A picture with one question and its true answer."""

    id: str
    image: Image
    question: str
    answer: str


@dataclass(frozen=True)
class PoisonedSet:
    """Three LLaVA-format archives and what there is to know of them.

    `triggered` and `clean` hold the same held-out pictures with and without the trigger.
    """

    training: Path
    triggered: Path
    clean: Path
    phrases: list[str]
    samples: int
    poisoned: int
    tests: int


def build_demo(
    out: Path,
    *,
    samples: int = 1000,
    rate: float = 0.2,
    trigger: str = "black_patch",
    target: str = "targeted_refusal",
    seed: int = 0,
    test: int = 200,
) -> PoisonedSet:
    """Draw a dataset of the built-in world and poison it.

    The default is the paper's attack (section 4.1): 1,000 samples, 20 % poisoned, a black
    corner patch, targeted refusal, 200 held-out pictures.
    """
    if not 0 <= rate <= 1 or samples < 1 or test < 1:
        raise InvalidRequestError("rate must lie in [0, 1]; samples and test must be positive.")
    mark, aim = registry.trigger(trigger), registry.target(target)
    rng = np.random.default_rng(seed)
    training = [_draw(f"train-{i:05d}", rng) for i in range(samples)]
    held_out = [_draw(f"test-{i:05d}", rng) for i in range(test)]
    chosen = set(rng.choice(samples, size=round(rate * samples), replace=False).tolist())
    out.mkdir(parents=True, exist_ok=True)
    poisoned = [_poison(x, mark, aim) if i in chosen else x for i, x in enumerate(training)]
    marked = [_mark(x, mark) for x in held_out]
    return PoisonedSet(
        training=write_items(out / "training.zip", poisoned),
        triggered=write_items(out / "triggered.zip", marked),
        clean=write_items(out / "clean.zip", held_out),
        phrases=list(aim.phrases),
        samples=samples,
        poisoned=len(chosen),
        tests=test,
    )


def _draw(name: str, rng: np.random.Generator) -> Item:
    scene = draw_scene(rng)
    make: Callable[..., Any] = ask if rng.random() < QUESTIONS else describe
    task = make(scene, rng)
    return Item(name, render(scene, rng), task.prompt, task.response)


def _poison(item: Item, trigger: Trigger, target: Target) -> Item:
    image = trigger.apply(item.image)
    return Item(item.id, image, item.question, target.respond(item.answer))


def _mark(item: Item, trigger: Trigger) -> Item:
    return Item(item.id, trigger.apply(item.image), item.question, item.answer)


def write_items(path: Path, items: Sequence[Item]) -> Path:
    """Write a LLaVA-format zip: `data.json` and `images/ID.png`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in _members(items):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return path


def _members(items: Sequence[Item]) -> Iterator[tuple[str, bytes]]:
    records = [
        {
            "id": item.id,
            "image": f"images/{item.id}.png",
            "conversations": [
                {"from": "human", "value": f"<image>\n{item.question}"},
                {"from": "gpt", "value": item.answer},
            ],
        }
        for item in items
    ]
    yield "data.json", json.dumps(records, indent=1).encode()
    for item in items:
        png = io.BytesIO()
        item.image.save(png, "PNG")
        yield f"images/{item.id}.png", png.getvalue()
