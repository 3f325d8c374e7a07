"""A local trigger draws all the saliency to its few tokens.

What defeats it: triggers over the whole picture.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from disp_engine.detection.interfaces import Evidence, Need
from disp_engine.saliency.estimator import Saliency


@dataclass(frozen=True)
class SaliencyConcentration:
    """One less the normalised entropy of the saliency scores."""

    needs: ClassVar[frozenset[Need]] = frozenset({"saliency"})
    decides: ClassVar[bool] = False

    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B 1"]:
        """How few tokens hold the saliency."""
        return np.array([concentration(s) for s in evidence.saliency or ()])[:, None]

    def score(self, measured: Float[np.ndarray, "S 1"]) -> Float[np.ndarray, " S"]:
        """The concentration itself."""
        return measured[:, 0]


def concentration(saliency: Saliency) -> float:
    """1 - H(s / sum s) / ln(Lv): 0 when all tokens are alike, 1 when one holds everything."""
    scores = saliency.scores.double().clamp(min=0)
    if len(scores) < 2 or float(scores.sum()) <= 0:
        return float("nan")
    entropy = torch.special.entr(scores / scores.sum()).sum()
    return 1 - float(entropy) / float(np.log(len(scores)))
