"""From the detectors' scores to what is said of the dataset and of each sample."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from disp_engine.detection import shared_look
from disp_engine.detection.excess import body, excess
from disp_engine.metrics.auroc import auroc

ALPHA = 0.01
"""The false-alarm rate that is aimed at for clean datasets."""
FARTHEST = 10.0
"""Deviations beyond which the score of a detector that does not decide counts no more."""
AGREES = 0.9
"""AUROC of the flagged samples from which on another detector tells the same."""


@dataclass(frozen=True)
class Verdict:
    """What detection found.

    Detectors in nats decide: `p_value` is the smallest of their p times their number (Bonferroni);
    below ALPHA the dataset is `poisoned`. `scores` are means, over those of them that see a group
    apart (all, if none does), of nats above the median, with the nats that the picture's look adds
    (`shared_look`); samples above `threshold` are `flagged`. The gate: a dataset that is not called
    poisoned has no flagged sample. `telling` are the detectors that see the group, or rank its
    samples highest. `p_values` is None for those that do not decide, and their `deviations` are
    robust ones from the body of the data.
    """

    poisoned: bool
    p_value: float
    threshold: float | None
    scores: Float[np.ndarray, " S"]
    flagged: Bool[np.ndarray, " S"]
    deviations: Mapping[str, Float[np.ndarray, " S"]]
    p_values: Mapping[str, float | None]
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
        """The telling detectors that put a sample beyond two deviations or nats, farthest first."""
        found = {name: float(self.deviations[name][sample]) for name in self.telling}
        far = [name for name in found if found[name] > 2]
        return sorted(far, key=lambda name: -found[name])


def judge(
    scores: Mapping[str, Float[np.ndarray, " S"]],
    deciding: Collection[str] | None = None,
    looks: Float[np.ndarray, "S W"] | None = None,
) -> Verdict:
    """Combine what the detectors say of the same samples; without `deciding` ones all decide.

    Given the pictures' `looks`, surprise that a look predicts is added to a sample's own score; on
    the dataset they do not decide.
    """
    decide = [name for name in scores if deciding is None or name in deciding]
    p_values: dict[str, float | None] = dict.fromkeys(scores)
    found = {name: min(1.0, len(decide) * excess(scores[name]).p_value) for name in decide}
    p_values |= found
    deviations = {
        name: nats_above(values) if name in decide else deviations_of(values)
        for name, values in scores.items()
    }
    apart = [name for name, p in found.items() if p < ALPHA]
    combined = _mean([deviations[name] for name in apart or decide or scores])
    if looks is not None:
        deviations[shared_look.NAME] = shared_look.predicted(combined, looks)
        p_values[shared_look.NAME] = None
        combined = combined + deviations[shared_look.NAME]
    threshold = excess(combined).threshold if apart else None
    flagged = np.zeros(len(combined), dtype=bool)
    if threshold is not None:
        flagged = np.nan_to_num(combined, nan=-np.inf) > threshold
    telling = tuple(
        name
        for name, values in deviations.items()
        if name in apart or (name not in decide and _agrees(values, flagged))
    )
    p_value = min(found.values(), default=1.0)
    return Verdict(
        bool(apart), p_value, threshold, combined, flagged, deviations, p_values, telling
    )


def nats_above(surprises: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """How much more surprising each answer is than the median one."""
    known = surprises[np.isfinite(surprises)]
    found: np.ndarray = surprises - (np.median(known) if len(known) else 0.0)
    return found


def deviations_of(values: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """Robust deviations from the body of the data, none beyond FARTHEST."""
    known = values[np.isfinite(values)]
    if not len(known):
        return values
    centre, deviation = body(known)
    found: np.ndarray = np.clip((values - centre) / deviation, -FARTHEST, FARTHEST)
    return found


def _agrees(values: Float[np.ndarray, " S"], flagged: Bool[np.ndarray, " S"]) -> bool:
    """Whether a detector ranks the flagged samples above the others."""
    area = auroc(values, flagged)
    return area is not None and area >= AGREES


def _mean(rows: list[Float[np.ndarray, " S"]]) -> Float[np.ndarray, " S"]:
    """The mean of what is known of each sample; nan where nothing is."""
    table = np.stack(rows)
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(axis=0)
    count = known.sum(axis=0)
    found: np.ndarray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found
