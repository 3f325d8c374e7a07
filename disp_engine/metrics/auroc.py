"""How well scores rank poisoned samples above clean ones."""

import numpy as np
from jaxtyping import Bool, Float


def auroc(scores: Float[np.ndarray, " S"], poisoned: Bool[np.ndarray, " S"]) -> float | None:
    """The chance that a poisoned sample scores higher than a clean one, ties counting half.

    Mann and Whitney's U over the number of pairs; None without both kinds. A score that is nan
    ranks lowest: what could not be scored is not found.
    """
    hits, misses = int(poisoned.sum()), int((~poisoned).sum())
    if not hits or not misses:
        return None
    known = np.nan_to_num(scores, nan=-np.inf)
    found, others = known[poisoned], np.sort(known[~poisoned])
    below = np.searchsorted(others, found, "left") + np.searchsorted(others, found, "right")
    return float(below.mean()) / (2 * misses)
