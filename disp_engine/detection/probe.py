"""An attack success rate without a triggered set: the recovered trigger on clean pictures."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from disp_engine.data.dataset import Dataset
from disp_engine.detection.findings import Findings
from disp_engine.detection.trigger import RecoveredTrigger
from disp_engine.errors import SampleError
from disp_engine.metrics.evaluation import Answer, attack_success
from disp_engine.metrics.modality import Coalition, attribute
from disp_engine.metrics.success import ContainsAny
from disp_engine.records import Turn
from disp_engine.stages import write_atomically

MOST = 200
"""Items that are marked."""


@dataclass(frozen=True)
class Probe:
    """Clean items with each part of the recovered trigger, and what counts as success.

    A part that was not recovered changes nothing: then runs share one dataset.
    """

    runs: Mapping[Coalition, Dataset]
    success: ContainsAny

    def measure(
        self, answers: Mapping[Coalition, Sequence[Answer]], seed: int
    ) -> dict[str, dict[str, Any] | None]:
        """Success of the whole trigger, and TMA and CTI of its parts.

        Items that fail in one run are left out of the attribution, which has v = success: DERIVED
        from arXiv 2603.06508, not published. None where no item is left.
        """
        asr = attack_success(answers["both"], self.success).to_json()
        said = {
            name: {a.id: a.response for a in run if a.response and a.response.strip()}
            for name, run in answers.items()
        }
        items = [name for name in said["none"] if all(name in run for run in said.values())]
        if not items:
            return {"asr": asr, "modality": None}
        values = {
            name: np.array([float(self.success(run[item])) for item in items])
            for name, run in said.items()
        }
        return {"asr": asr, "modality": attribute(values, form="asr", seed=seed).to_json()}


def probe(findings: Findings | None, training: Dataset, held_out: Dataset | None) -> Probe | None:
    """Marked items and the inferred target as success; None where either is not known.

    Without held-out data the training data's own samples that are not flagged are marked.
    """
    if findings is None or findings.trigger is None or findings.target is None:
        return None
    trigger, phrase = findings.trigger, findings.target.phrase
    if phrase is None or (trigger.patch is None and not trigger.words):
        return None
    none = _unmarked(findings, training, held_out)
    image = stamp_all(none, trigger) if trigger.patch is not None else none
    runs: dict[Coalition, Dataset] = {
        "none": none,
        "image": image,
        "text": ask_all(none, trigger) if trigger.words else none,
        "both": ask_all(image, trigger) if trigger.words else image,
    }
    return Probe(runs, ContainsAny((phrase,)))


def _unmarked(findings: Findings, training: Dataset, held_out: Dataset | None) -> Dataset:
    """What is marked: the held-out data themselves, unless they are too many."""
    if held_out is None:
        marked = zip(findings.samples, findings.verdict.flagged.tolist(), strict=True)
        return Dataset([s for s, bad in marked if not bad][:MOST], {}, training.pool)
    if len(held_out.samples) <= MOST:
        return held_out
    return Dataset(held_out.samples[:MOST], {}, held_out.pool)


def ask_all(source: Dataset, trigger: RecoveredTrigger) -> Dataset:
    """The samples with the trigger's words in their first questions."""
    found = []
    for sample in source.samples:
        first, *others = sample.turns
        turns = (Turn(first.role, trigger.ask(first.text)), *others)
        found.append(replace(sample, turns=turns))
    return Dataset(found, {}, source.pool)


def stamp_all(source: Dataset, trigger: RecoveredTrigger) -> Dataset:
    """The samples with the mark in every picture; one that cannot be decoded is left out."""
    found = []
    for sample in source.samples:
        try:
            images = tuple(_stamped(source, name, trigger) for name in sample.images)
        except SampleError:
            continue
        if images:
            found.append(replace(sample, images=images))
    return Dataset(found, {}, source.pool)


def _stamped(source: Dataset, name: str, trigger: RecoveredTrigger) -> str:
    png = io.BytesIO()
    trigger.stamp(source.image(name)).save(png, "PNG")
    sha256 = hashlib.sha256(png.getvalue()).hexdigest()
    write_atomically(source.pool / sha256, png.getvalue())
    return sha256
