"""The training objective: Eq. 2, with the per-row length that LLaDA divides by, or unweighted.

Both take what the M masked positions cost, -log P(x_i), in their order.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from disp_engine.diffusion.forward import Masking


def diffusion_loss(
    losses: Float[Tensor, " M"], labelled: Bool[Tensor, "B L"], masking: Masking
) -> Float[Tensor, ""]:
    """(1/B) sum_b 1/(p_b n_b) sum_{masked i} -log P(x_i), n_b the labelled positions of row b."""
    lengths = labelled.sum(dim=1).clamp(min=1)
    weights = (1 / (masking.p * lengths))[:, None].expand(masking.masked.shape)[masking.masked]
    return (losses * weights).sum() / len(labelled)  # Eq. 2


def mean_loss(losses: Float[Tensor, " M"]) -> Float[Tensor, ""]:
    """Mean over all masked positions: Eq. 2 without the weight 1/t (LaViDa)."""
    return losses.sum() / max(1, len(losses))
