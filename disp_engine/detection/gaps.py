"""Is there a group of answers apart that the base model would practically never give?

Scores are surprises in nats. Beyond any level, those of a calibrated model fall off at least like
e^-s, so that with n scores in falling order, y_1 >= y_2 >= ..., the spacings e_k = k (y_k -
y_{k+1}) are no longer than independent exponentials of one nat (Rényi 1953); real models are too
sure of themselves, and SCALE allows for it. A group of k beyond a gap of g nats then has p <= K
exp(-k g / SCALE), K groups being looked at. The scale is not estimated from the data: honest
surprises are nought for most samples and some nats for a few, which any estimate takes for a gap.

What it cannot see: groups that overlap or lie less than LEAST_GAP apart, handfuls (less than one in
a hundred), rates above 60 %. What it takes for poison: honest answers that the base model finds as
absurd, in a group apart, as wrong labels are.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

FEWEST = 16
"""Scores below which nothing can be told."""
LEAST_SHARE, MOST_SHARE = 0.01, 0.6
SMALLEST_GROUP = 3
SCALE = 2.0
"""Nats in which the tail of an overconfident model falls by e."""
LEAST_GAP = 1.0
"""Nats below which a gap is none, however many lie beyond it."""


@dataclass(frozen=True)
class Gap:
    """The gap of smallest p: `threshold` is its middle, None where there is none."""

    p_value: float
    threshold: float | None


def widest_gap(surprises: Float[np.ndarray, " S"]) -> Gap:
    """Test for a group apart at the upper end; scores that are nan are left out."""
    y = np.sort(surprises[np.isfinite(surprises)])[::-1]
    if len(y) < FEWEST:
        return Gap(1.0, None)
    least = max(SMALLEST_GROUP, int(np.ceil(LEAST_SHARE * len(y))))
    k = np.arange(least, int(MOST_SHARE * len(y)) + 1)
    gaps = y[k - 1] - y[k]
    spacings = np.where(gaps >= LEAST_GAP, k * gaps, 0.0)
    at = int(spacings.argmax())
    if not spacings[at]:
        return Gap(1.0, None)
    p_value = min(1.0, len(k) * float(np.exp(-spacings[at] / SCALE)))
    return Gap(p_value, float(y[k[at] - 1] + y[k[at]]) / 2)


def body(y: Float[np.ndarray, " S"]) -> tuple[float, float]:
    """Centre and deviation of the normal that the 10 % and 25 % quantiles are of.

    Up to half of the samples may be poisoned and high, so nothing above is looked at.
    """
    low, lower = np.quantile(y, [0.1, 0.25])
    deviation = (lower - low) / (norm.ppf(0.25) - norm.ppf(0.1))
    if deviation <= 0:
        deviation = float(y.std()) or 1.0
    return float(lower - norm.ppf(0.25) * deviation), float(deviation)
