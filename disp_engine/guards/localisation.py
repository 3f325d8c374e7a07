"""Which of a layer's visual tokens are looked at abnormally much (PurMM, Eq. 3).

The attention of the P tokens falls into clusters; those of the cluster with the highest mean are
suspected. Letters: v the attention of each token [P].
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

Values = NDArray[np.float64]
Labels = NDArray[np.int64]


def kmeans(v: Values) -> Labels:
    """K-Means with two clusters; on a line its optimum is found exactly, by trying each cut.

    scikit-learn's with ten starts nearly always ends there, at a thousand times the price.
    """
    ordered = np.sort(v)
    size = np.arange(1, len(v))
    low, total = np.cumsum(ordered)[:-1], ordered.sum()
    # The spread within both clusters is smallest where that between them is largest.
    between = low**2 / size + (total - low) ** 2 / (len(v) - size)
    between[np.diff(ordered) == 0] = -np.inf
    found: Labels = (v > ordered[int(between.argmax())]).astype(np.int64)
    return found


def gmm(v: Values) -> Labels:
    """A mixture of two Gaussians."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels: Labels = GaussianMixture(2, random_state=0).fit_predict(v[:, None])
    return labels


def dbscan(v: Values) -> Labels:
    """DBSCAN with the authors' eps and min_samples; noise counts as a cluster."""
    labels: Labels = DBSCAN(eps=1e-4, min_samples=3).fit_predict(v[:, None])
    return labels


CLUSTERINGS: Mapping[str, Callable[[Values], Labels]] = {
    "kmeans": kmeans,
    "gmm": gmm,
    "dbscan": dbscan,
}


def contrast(v: Values, tokens: frozenset[int]) -> float:
    """How many times as much as the others some tokens are looked at; 1 where there are no others.

    Infinite where nobody looks at the others.
    """
    chosen = np.zeros(len(v), dtype=bool)
    chosen[sorted(tokens)] = True
    if chosen.all() or not chosen.any():
        return 1.0
    others = float(v[~chosen].mean())
    return float(v[chosen].mean()) / others if others > 0 else np.inf


def suspected(v: Values, clustering: str) -> frozenset[int]:
    """Tokens of the cluster with the highest mean; none where all are looked at alike."""
    if len(v) < 2 or v.max() == v.min():
        return frozenset()
    labels = CLUSTERINGS[clustering](v)
    highest = max(np.unique(labels), key=lambda label: v[labels == label].mean())
    return frozenset(int(token) for token in (labels == highest).nonzero()[0])
