"""An attack success rate without a triggered set: the recovered trigger on clean pictures."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace

from disp_engine.data.dataset import Dataset
from disp_engine.detection.findings import Findings
from disp_engine.detection.trigger import RecoveredTrigger
from disp_engine.errors import SampleError
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.success import ContainsAny
from disp_engine.records import Sample
from disp_engine.stages import write_atomically

MOST = 200
"""Pictures that are stamped."""


def probe(
    findings: Findings | None, training: Dataset, held_out: Dataset | None
) -> EvaluationSets | None:
    """Stamped pictures and the inferred target as success; None where either is not known.

    Without held-out data the training data's own samples that are not flagged are stamped.
    """
    if findings is None or findings.trigger is None or findings.target is None:
        return None
    phrase = findings.target.phrase
    if findings.trigger.patch is None or phrase is None:
        return None
    if held_out is not None:
        source, samples = held_out, list(held_out.samples)
    else:
        marked = zip(findings.samples, findings.verdict.flagged.tolist(), strict=True)
        source, samples = training, [sample for sample, bad in marked if not bad]
    stamped = stamp_all(source, samples[:MOST], findings.trigger)
    return EvaluationSets(stamped, None, ContainsAny((phrase,)))


def stamp_all(source: Dataset, samples: Sequence[Sample], trigger: RecoveredTrigger) -> Dataset:
    """The samples with the mark in every picture; one that cannot be decoded is left out."""
    found = []
    for sample in samples:
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
