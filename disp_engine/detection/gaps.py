"""Is there a group apart among many scores, and where does it begin?

Clean scores, in whatever units, fall off smoothly: between one sample and the next higher one there
is little room, the more so the more samples lie above. Poisoned ones lie beyond a gap. With n
scores in falling order y_1 >= y_2 >= ..., e_k = k (y_k - y_{k+1}) are independent and alike if the
tail is exponential (Rényi 1953); whether the largest of K such numbers is too large a share g of
their sum is Fisher's test of 1929, p <= K (1 - g)^(K-1). The same is asked after a change of scale
under which normal scores have an exponential tail. Neither suits scores that crowd at their upper
end, so the gap is also compared with those right below it, as if scores were uniform there. The
largest of the three p counts: the gap must be too wide for each. Only e_k that are not nought
count, which keeps scores with few values from alarming.

What it cannot see: groups that overlap, handfuls (less than one in a hundred), rates above 60 %.
What it takes for a group apart: honest samples of another kind that lie apart for their own reason.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

FEWEST = 16
"""Scores below which nothing can be told."""
LEAST_SHARE, MOST_SHARE = 0.01, 0.6
WINDOW = 0.2
"""Share of the samples below a gap with whose spacing it is compared."""
SMALLEST_GROUP = 3


@dataclass(frozen=True)
class Gap:
    """The widest gap: `threshold` is its middle, None where there is none."""

    p_value: float
    threshold: float | None


def widest_gap(scores: Float[np.ndarray, " S"]) -> Gap:
    """Test for a group apart at the upper end; scores that are nan are left out."""
    y = np.sort(scores[np.isfinite(scores)])[::-1]
    if len(y) < FEWEST:
        return Gap(1.0, None)
    least = max(SMALLEST_GROUP, int(np.ceil(LEAST_SHARE * len(y))))
    k = np.arange(least, int(MOST_SHARE * len(y)) + 1)
    centre, deviation = body(y)
    plain = k * (y[k - 1] - y[k])
    scaled = -norm.logsf((y - centre) / deviation)
    normal = k * (scaled[k - 1] - scaled[k])
    if not plain.any():
        return Gap(1.0, None)
    at = int(k[plain.argmax()])
    below = len(k) * gap_p(y[at - 1 : at + int(WINDOW * len(y))])
    p_value = max(largest_share_p(plain), largest_share_p(normal), min(1.0, below))
    return Gap(p_value, float(y[at - 1] + y[at]) / 2)


def body(y: Float[np.ndarray, " S"]) -> tuple[float, float]:
    """Centre and deviation of the normal that the 10 % and 25 % quantiles are of.

    Up to half of the samples may be poisoned and high, so nothing above is looked at.
    """
    low, lower = np.quantile(y, [0.1, 0.25])
    deviation = (lower - low) / (norm.ppf(0.25) - norm.ppf(0.1))
    if deviation <= 0:
        deviation = float(y.std()) or 1.0
    return float(lower - norm.ppf(0.25) * deviation), float(deviation)


def gap_p(y: Float[np.ndarray, " W"]) -> float:
    """The chance that the first spacing of falling scores is so large a share of them all.

    Spacings are exponential and alike where scores are uniform; those that are nought do not count.
    """
    spacings = y[:-1] - y[1:]
    others = int((spacings[1:] > 0).sum())
    return float((1 - spacings[0] / spacings.sum()) ** others) if spacings[0] > 0 else 1.0


def largest_share_p(numbers: Float[np.ndarray, " K"]) -> float:
    """Fisher's test: an upper bound of p for the largest number's share of the sum.

    Numbers are exponential and alike under the null hypothesis; those that are nought do not count.
    """
    real = numbers[numbers > 0]
    if len(real) < 2:
        return 1.0
    share = float(real.max() / real.sum())
    return min(1.0, len(real) * (1 - share) ** (len(real) - 1))
