"""One group or two: mixtures of normal distributions over numbers, told apart by BIC and distance.

Methods that split attention statistics (BYE, TCAP) stand on these; a mixture of two always finds
two groups, so each asks here whether there are two.
"""

import warnings

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

FEWEST = 8
"""Numbers below which no mixture is fitted."""
MOST = 4096
"""Numbers above which a mixture is fitted to evenly spaced ones of them."""


def mixture(values: Float[np.ndarray, " S"], components: int) -> GaussianMixture:
    """Fit a mixture to finite numbers."""
    thinned = values[:: -(-len(values) // MOST)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # BIC judges what it came to
        return GaussianMixture(components, random_state=0, reg_covar=1e-12).fit(thinned[:, None])


def separation(two: GaussianMixture) -> float:
    """|mu1 - mu2| / sqrt(sigma1^2 + sigma2^2): BYE's index of how far two groups lie apart."""
    (first,), (second,) = two.means_
    return float(abs(first - second) / np.sqrt(two.covariances_.sum()))


def two_groups(
    values: Float[np.ndarray, " S"], tau: float, least_weight: float
) -> GaussianMixture | None:
    """The mixture of two if there are two groups, each no handful, that lie `tau` apart."""
    if len(values) < FEWEST or np.ptp(values) == 0:
        return None
    one, two = mixture(values, 1), mixture(values, 2)
    column = values[:, None]
    if two.bic(column) >= one.bic(column) or separation(two) < tau:
        return None
    return two if two.weights_.min() >= least_weight else None
