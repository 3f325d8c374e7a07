"""A poisoned response is not what the model says once the salient tokens are hidden.

What defeats it: triggers that survive the mask; answers that need the hidden detail, which are
rewritten in clean data too.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.detection.interfaces import Evidence, Need


@dataclass(frozen=True)
class ResponseDisagreement:
    """One less the share of tokens that given and rewritten response have in common, in order."""

    needs: ClassVar[frozenset[Need]] = frozenset({"rewritten"})
    decides: ClassVar[bool] = False

    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B 1"]:
        """Compare the first responses."""
        rewritten = evidence.rewritten or ()
        found = [
            np.nan
            if text is None
            else disagreement(original, evidence.model.tokenise_response(text))
            for original, text in zip(evidence.original_ids(), rewritten, strict=True)
        ]
        return np.array(found)[:, None]

    def score(self, measured: Float[np.ndarray, "S 1"]) -> Float[np.ndarray, " S"]:
        """The disagreement itself."""
        return measured[:, 0]


def disagreement(first: Int[Tensor, " _"], second: Int[Tensor, " _"]) -> float:
    """1 - 2 C / (length + length), C the longest common subsequence of the tokens."""
    a, b = first.tolist(), second.tolist()
    if not a and not b:
        return 0.0
    row = [0] * (len(b) + 1)
    for token in a:
        above = row[:]
        for j, other in enumerate(b, 1):
            row[j] = above[j - 1] + 1 if token == other else max(above[j], row[j - 1])
    return 1 - 2 * row[-1] / (len(a) + len(b))
