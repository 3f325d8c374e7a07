"""The training objective: Eq. 2, with the per-row length that LLaDA divides by, or unweighted."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from disp_engine.diffusion.forward import Masking

_CHUNK = 1024
"""Masked positions whose logits are in memory at a time."""


def diffusion_loss(
    hidden: Float[Tensor, "M D"],
    labels: Int[Tensor, "B L"],
    labelled: Bool[Tensor, "B L"],
    masking: Masking,
    logits: Callable[[Float[Tensor, "M D"]], Float[Tensor, "M V"]],
) -> Float[Tensor, ""]:
    """(1/B) sum_b 1/(p_b n_b) sum_{masked i} -log P(x_i), n_b the labelled positions of row b.

    `hidden` are the states of the M masked positions in their order.
    """
    lengths = labelled.sum(dim=1).clamp(min=1)
    weights = (1 / (masking.p * lengths))[:, None].expand(masking.masked.shape)[masking.masked]
    losses = surprise(hidden, labels[masking.masked], logits)
    return (losses * weights).sum() / len(labels)  # Eq. 2


def mean_loss(
    hidden: Float[Tensor, "M D"],
    labels: Int[Tensor, " M"],
    logits: Callable[[Float[Tensor, "M D"]], Float[Tensor, "M V"]],
) -> Float[Tensor, ""]:
    """Mean of -log P(x_i) over all masked positions: Eq. 2 without the weight 1/t (LaViDa)."""
    losses = surprise(hidden, labels, logits)
    return losses.sum() / max(1, len(losses))


def surprise(
    hidden: Float[Tensor, "M D"],
    labels: Int[Tensor, " M"],
    logits: Callable[[Float[Tensor, "M D"]], Float[Tensor, "M V"]],
) -> Float[Tensor, " M"]:
    """-log P of each label in float32; logits are made again in the backward pass."""

    def chunk(rows: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits(rows).float(), targets, reduction="none")

    pairs = zip(torch.split(hidden, _CHUNK), torch.split(labels, _CHUNK), strict=True)
    return torch.cat([checkpoint(chunk, *pair, use_reentrant=False) for pair in pairs])
