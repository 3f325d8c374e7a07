"""How well detection found what was poisoned."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from disp_engine.detection.findings import Findings
from disp_engine.metrics.auroc import auroc
from disp_engine.metrics.filtering import filter_quality


def detection_quality(
    findings: Findings, poisoned: Collection[str], recovered: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the report says, with AUROC of all detectors (`areas`) and the quality of the flags."""
    verdict, samples = findings.verdict, findings.samples
    bad = np.array([sample.id in poisoned for sample in samples])
    marks = zip(samples, verdict.flagged.tolist(), strict=True)
    flagged = [sample.id for sample, marked in marks if marked]
    return findings.to_json() | {
        "auroc": auroc(verdict.scores, bad),
        "areas": {name: auroc(values, bad) for name, values in verdict.deviations.items()},
        "flags": filter_quality(flagged, poisoned).to_json(),
        "recovered": recovered,
    }
