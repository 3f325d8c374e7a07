"""The forward process: Eq. 1.

At time t in [0, 1] each labelled token is replaced by the mask with probability
p = (1 - eps) t + eps, independently; u ~ U(0, 1) decides, so that a caller owns all randomness.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

EPSILON = 1e-3


@dataclass(frozen=True)
class Masking:
    """Which positions the forward process masked, and with what probability in each row."""

    masked: Bool[Tensor, "B L"]
    p: Float[Tensor, " B"]


def mask_tokens(
    labelled: Bool[Tensor, "B L"], t: Float[Tensor, " B"], u: Float[Tensor, "B L"]
) -> Masking:
    """Mask labelled positions at times `t`."""
    p = (1 - EPSILON) * t + EPSILON
    return Masking(masked=(u < p[:, None]) & labelled, p=p)  # Eq. 1
