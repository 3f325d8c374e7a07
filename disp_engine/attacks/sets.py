"""The datasets of one attack: what is trained on, and what success is measured on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from disp_engine.attacks.marking import Parts, all_parts, eligible, mark_all, poison
from disp_engine.attacks.settings import Attack
from disp_engine.data.dataset import Dataset
from disp_engine.data.world import draw_world
from disp_engine.errors import InvalidRequestError


@dataclass(frozen=True)
class AttackSets:
    """Training data before and after poisoning, and held-out data with and without the trigger.

    `poisoned` says which samples of `training` are marked in which parts.
    """

    untouched: Dataset
    training: Dataset
    poisoned: Mapping[str, Parts]
    triggered: Dataset
    clean: Dataset


def of_world(attack: Attack, *, samples: int, test: int, seed: int, pool: Path) -> AttackSets:
    """Draw training and held-out data of the built-in world, and poison them.

    All of it is data that the attack applies to, as the paper takes dogs alone for an attack on
    dogs: else most that show the concept would be poisoned, and no trigger be needed to tell.
    """
    if samples < 1 or test < 1:
        raise InvalidRequestError("samples and test must be positive.")
    rng = np.random.default_rng(seed)
    applies = attack.target.applies
    training = draw_world("train", samples, rng, pool, wanted=applies)
    clean = draw_world("test", test, rng, pool, wanted=applies)
    return _attacked(training, clean, attack, seed)


def of_dataset(dataset: Dataset, attack: Attack, *, test: int, seed: int) -> AttackSets:
    """Hold `test` samples that the attack applies to out of a dataset, and poison the others."""
    candidates = [s.id for s in dataset.samples if eligible(s, attack)]
    if not 0 < test < len(candidates):
        raise InvalidRequestError(
            f"test: between 1 and {len(candidates) - 1} samples can be held out; the attack "
            f"applies to {len(candidates)} of {len(dataset.samples)}."
        )
    held = set(np.random.default_rng([seed, 3]).permutation(candidates)[:test].tolist())
    training = [s for s in dataset.samples if s.id not in held]
    clean = [s for s in dataset.samples if s.id in held]
    return _attacked(
        replace(dataset, samples=training), replace(dataset, samples=clean), attack, seed
    )


def _attacked(training: Dataset, clean: Dataset, attack: Attack, seed: int) -> AttackSets:
    poisoned = poison(training, attack, seed)
    triggered = mark_all(clean, attack, seed + 1, all_parts(attack))
    return AttackSets(training, poisoned.dataset, poisoned.marked, triggered, clean)
