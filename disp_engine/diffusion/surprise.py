"""-log P of tokens by a head on the vocabulary, whose logits are never all in memory.

Letters: M positions, D width, V vocabulary.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_CHUNK = 256
"""Positions whose logits are in memory at a time."""


def surprise(
    hidden: Float[Tensor, "M D"],
    labels: Int[Tensor, " M"],
    logits: Callable[[Float[Tensor, "M D"]], Float[Tensor, "M V"]],
) -> Float[Tensor, " M"]:
    """-log P of each label in float32; logits are made again in the backward pass."""

    def chunk(rows: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits(rows).float(), targets, reduction="none")

    pairs = _pairs(hidden, labels)
    return torch.cat([checkpoint(chunk, *pair, use_reentrant=False) for pair in pairs])


def linear_surprise(
    hidden: Float[Tensor, "M D"], labels: Int[Tensor, " M"], head: Float[Tensor, "V D"]
) -> Float[Tensor, " M"]:
    """The same by a linear head; a frozen one's logits are made once, and turned into gradients."""
    if head.requires_grad or not (hidden.requires_grad and torch.is_grad_enabled()):
        return surprise(hidden, labels, partial(functional.linear, weight=head))
    pairs = _pairs(hidden, labels)
    return torch.cat([_Frozen.apply(*pair, head) for pair in pairs])  # type: ignore[no-untyped-call]


def _pairs(
    hidden: Float[Tensor, "M D"], labels: Int[Tensor, " M"]
) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(hidden, _CHUNK), torch.split(labels, _CHUNK), strict=True)


class _Frozen(Function):
    """Keeps of each position its gradient (p - label) W alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, targets: Tensor, head: Tensor) -> Tensor:
        scores = functional.linear(rows, head).float()
        at = targets[:, None]
        largest, told = scores.amax(dim=1, keepdim=True), scores.gather(1, at)
        total = scores.sub_(largest).exp_().sum(dim=1, keepdim=True)
        scores.div_(total).scatter_add_(1, at, scores.new_full(at.shape, -1))
        ctx.save_for_backward(scores.to(head.dtype) @ head)
        return (total.log() + (largest - told))[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * gradient[:, None]).to(slopes.dtype), None, None
