"""The forward process: Eq. 1.

At time t in [0, 1] each labelled token is replaced by the mask with probability
p = (1 - eps) t + eps, independently; u ~ U(0, 1) decides, so that a caller owns all randomness.
"""

from dataclasses import dataclass

import torch
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


def complementary_masks(
    maskable: Bool[Tensor, "B L"], t: Float[Tensor, " B"], u: Float[Tensor, "B L"]
) -> Masking:
    """Two rows for each: the drawn mask and, in the batch's second half, all that it left open.

    LaViDa's forward process (https://arxiv.org/abs/2505.16839): at least one position of a row,
    labelled or not, is drawn, so `p` is not raised where the least u lies above it.
    """
    p = (1 - EPSILON) * t + EPSILON
    drawn = u <= torch.maximum(p, u.amin(dim=1))[:, None]  # Eq. 1
    masked = torch.cat([drawn & maskable, ~drawn & maskable])
    return Masking(masked=masked, p=torch.cat([p, p]))
