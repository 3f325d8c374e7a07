"""From the detectors' scores to what is said of the dataset and of each sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from disp_engine.detection.gaps import body, widest_gap

ALPHA = 0.01
"""The false-alarm rate that is aimed at for clean datasets."""
FARTHEST = 10.0
"""Deviations beyond which a detector's score counts no more: one detector decides nothing alone."""


@dataclass(frozen=True)
class Verdict:
    """What detection found.

    `p_value` is the smallest of the detectors' p times their number (Bonferroni); below ALPHA the
    dataset is `poisoned`. `scores` are means, over the `telling` detectors (all, if none tells), of
    robust deviations from the body of the data; samples above `threshold` are `flagged`. The gate:
    a dataset that is not called poisoned has no flagged sample.
    """

    poisoned: bool
    p_value: float
    threshold: float | None
    scores: Float[np.ndarray, " S"]
    flagged: Bool[np.ndarray, " S"]
    deviations: Mapping[str, Float[np.ndarray, " S"]]
    p_values: Mapping[str, float]
    telling: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The verdict as the report holds it, without the samples' own scores."""
        return {
            "poisoned": self.poisoned,
            "p_value": self.p_value,
            "alpha": ALPHA,
            "threshold": self.threshold,
            "flagged": int(self.flagged.sum()),
            "scored": int(np.isfinite(self.scores).sum()),
            "detectors": {
                name: {"p_value": p, "telling": name in self.telling}
                for name, p in self.p_values.items()
            },
        }

    def reasons(self, sample: int) -> list[str]:
        """The telling detectors that put a sample beyond two deviations, the farthest first."""
        found = {name: float(self.deviations[name][sample]) for name in self.telling}
        far = [name for name in found if found[name] > 2]
        return sorted(far, key=lambda name: -found[name])


def judge(scores: Mapping[str, Float[np.ndarray, " S"]]) -> Verdict:
    """Combine what the detectors say of the same samples."""
    deviations = {name: deviations_of(values) for name, values in scores.items()}
    p_values = {
        name: min(1.0, len(scores) * widest_gap(values).p_value) for name, values in scores.items()
    }
    p_value = min(p_values.values(), default=1.0)
    telling = tuple(name for name, p in p_values.items() if p < ALPHA)
    combined = _mean([deviations[name] for name in telling or scores])
    threshold = widest_gap(combined).threshold if telling else None
    flagged = np.zeros(len(combined), dtype=bool)
    if threshold is not None:
        flagged = np.nan_to_num(combined, nan=-np.inf) > threshold
    return Verdict(
        bool(telling), p_value, threshold, combined, flagged, deviations, p_values, telling
    )


def deviations_of(values: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """Robust deviations from the body of the data, none beyond FARTHEST."""
    known = values[np.isfinite(values)]
    if not len(known):
        return values
    centre, deviation = body(known)
    found: np.ndarray = np.clip((values - centre) / deviation, -FARTHEST, FARTHEST)
    return found


def _mean(rows: list[Float[np.ndarray, " S"]]) -> Float[np.ndarray, " S"]:
    """The mean of what is known of each sample; nan where nothing is."""
    table = np.stack(rows)
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(axis=0)
    count = known.sum(axis=0)
    found: np.ndarray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found
