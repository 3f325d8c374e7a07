"""Writes poisoned datasets as archives, with what was done beside them and not within."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from disp_engine.attacks.sets import AttackSets, of_dataset, of_world
from disp_engine.attacks.settings import AttackSettings
from disp_engine.data.dataset import read_dataset
from disp_engine.data.writer import write_archive
from disp_engine.stages import write_atomically

WORLD_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "misclassification": {"source": "circle", "destination": "square"},
}
"""Options of targets that speak of things which the built-in world does not have."""


@dataclass(frozen=True)
class PoisonedSet:
    """Three LLaVA-format archives, the sidecar, and what there is to know of them.

    `triggered` and `clean` hold the same held-out pictures with and without the trigger;
    `sidecar` is a JSON file that names the poisoned samples.
    """

    training: Path
    triggered: Path
    clean: Path
    sidecar: Path
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
    settings = AttackSettings(trigger, target, rate)
    return poison_world(out, settings, samples=samples, test=test, seed=seed)


def for_world(settings: AttackSettings) -> AttackSettings:
    """The settings with such options of the target as fit the built-in world."""
    options = dict(WORLD_OPTIONS.get(settings.target, {})) | dict(settings.target_options)
    return AttackSettings(**settings.to_json() | {"target_options": options})


def poison_world(
    out: Path, settings: AttackSettings, *, samples: int, test: int, seed: int
) -> PoisonedSet:
    """Draw a dataset of the built-in world, poison it and write it below `out`."""
    settings = for_world(settings)
    with TemporaryDirectory() as pool:
        sets = of_world(
            settings.build(), samples=samples, test=test, seed=seed, pool=Path(pool)
        )  # fmt: skip
        return _write(out, settings, sets, seed)


def poison_dataset(
    out: Path, settings: AttackSettings, data: Path, *, test: int, seed: int
) -> PoisonedSet:
    """Poison a LLaVA-format archive or folder, `test` samples of it held out."""
    with TemporaryDirectory() as pool:
        dataset = read_dataset(data, Path(pool))
        sets = of_dataset(dataset, settings.build(), test=test, seed=seed)
        return _write(out, settings, sets, seed)


def _write(out: Path, settings: AttackSettings, sets: AttackSets, seed: int) -> PoisonedSet:
    out.mkdir(parents=True, exist_ok=True)
    phrases = list(settings.build().target.phrases)
    sidecar = {
        "attack": settings.to_json(),
        "seed": seed,
        "phrases": phrases,
        "training_sha256": sets.training.sha256,
        "poisoned": {name: list(parts) for name, parts in sets.poisoned.items()},
    }
    path = out / "poisoned.json"
    write_atomically(path, json.dumps(sidecar, indent=1, ensure_ascii=False).encode())
    return PoisonedSet(
        training=write_archive(out / "training.zip", sets.training),
        triggered=write_archive(out / "triggered.zip", sets.triggered),
        clean=write_archive(out / "clean.zip", sets.clean),
        sidecar=path,
        phrases=phrases,
        samples=len(sets.training.samples),
        poisoned=len(sets.poisoned),
        tests=len(sets.clean.samples),
    )
