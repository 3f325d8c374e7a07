"""Are there more absurd answers than honest surprise explains, and where do they begin?

Scores are surprises in nats. Beyond any level, those of a calibrated model fall off at least like
e^-s, so that with scores in falling order, y_1 >= y_2 >= ..., the k normalised spacings
i (y_i - y_{i+1}) are no longer than independent exponentials of one nat (Rényi 1953), and their
sum, the excess of the k highest over the next one, than a gamma variable of k. Real models are too
sure of themselves: the scale is SCALE nats, or the spread of the lower scores where that is
larger. The smallest p over the sizes k counts, times their number. The scale is not estimated from
the tail: honest surprises are nought for most samples and some nats for a few, which any estimate
takes for a group apart.

Among sizes up to that of the smallest p, the one that parts the scores best (Otsu's variance
between two classes) tells where the group begins.

What it cannot see: groups no more surprising than honest answers, handfuls (less than one in a
hundred), rates above 60 %. What it takes for poison: honest answers that the base model finds as
absurd, as wrong labels are.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import gammaincc, ndtri

FEWEST = 16
"""Scores below which nothing can be told."""
LEAST_SHARE, MOST_SHARE = 0.01, 0.6
SMALLEST_GROUP = 3
SCALE = 1.5
"""Nats in which the tail of an overconfident model falls by e."""


@dataclass(frozen=True)
class Excess:
    """The chance of so much surprise; the group is above `threshold`, None where there is none."""

    p_value: float
    threshold: float | None


def excess(surprises: Float[np.ndarray, " S"]) -> Excess:
    """Test for a group at the upper end; scores that are nan are left out."""
    y = np.sort(surprises[np.isfinite(surprises)])[::-1]
    if len(y) < FEWEST or y[0] == y[-1]:
        return Excess(1.0, None)
    least = max(SMALLEST_GROUP, int(np.ceil(LEAST_SHARE * len(y))))
    k = np.arange(least, int(MOST_SHARE * len(y)) + 1)
    over = np.cumsum(y)[k - 1] - k * y[k]
    p_values = gammaincc(k, np.maximum(over, 0) / scale_of(y))
    at = int(p_values.argmin())
    size = best_part(y, k[: at + 1])
    p_value = min(1.0, len(k) * float(p_values[at]))
    return Excess(p_value, float(y[size - 1] + y[size]) / 2)


def scale_of(y: Float[np.ndarray, " S"]) -> float:
    """The pace at which surprise may fall off: SCALE, or what the lower scores show.

    Of normal scores the distance of their 10 % and 40 % quantiles is more than the mean excess over
    the latter; up to 60 % of the samples may be poisoned and high, so nothing above is looked at.
    """
    low, lower = np.quantile(y, [0.1, 0.4])
    return max(SCALE, float(lower - low))


def best_part(y: Float[np.ndarray, " S"], sizes: np.ndarray) -> int:
    """Of some sizes of the upper group, the one with the largest variance between two classes."""
    total, upper = float(y.sum()), np.cumsum(y)[sizes - 1]
    apart = upper / sizes - (total - upper) / (len(y) - sizes)
    return int(sizes[int((sizes * (len(y) - sizes) * apart**2).argmax())])


def body(y: Float[np.ndarray, " S"]) -> tuple[float, float]:
    """Centre and deviation of the normal that the 10 % and 25 % quantiles are of.

    Up to half of the samples may be poisoned and high, so nothing above is looked at.
    """
    low, lower = np.quantile(y, [0.1, 0.25])
    deviation = (lower - low) / (ndtri(0.25) - ndtri(0.1))
    if deviation <= 0:
        deviation = float(y.std()) or 1.0
    return float(lower - ndtri(0.25) * deviation), float(deviation)
