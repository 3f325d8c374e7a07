"""The gradient of a batch, summed over its micro-batches by one process or by several."""

from collections.abc import Callable, Iterator, Sequence

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

LossOf = Callable[[int], Float[Tensor, ""]]
"""The loss of the micro-batch with this number."""


def sum_gradients(
    accelerator: Accelerator, parameters: Sequence[nn.Parameter], loss_of: LossOf, count: int
) -> float:
    """Leave the gradient of the sum of `count` losses in the parameters; return the sum.

    Process r of N computes the losses r, r + N, and so on. Gradients are added in the order of
    the losses and not of the processes, so that on equal devices the sum is the same to the last
    bit however many take part.
    """
    total = 0.0
    summed = [torch.zeros_like(parameter) for parameter in parameters]
    for first in range(0, count, accelerator.num_processes):
        for loss, gradients in _round(accelerator, parameters, loss_of, first, count):
            total += loss
            for so_far, gradient in zip(summed, gradients, strict=True):
                so_far += gradient
    for parameter, gradient in zip(parameters, summed, strict=True):
        parameter.grad = gradient
    return total


def _round(
    accelerator: Accelerator,
    parameters: Sequence[nn.Parameter],
    loss_of: LossOf,
    first: int,
    count: int,
) -> Iterator[tuple[float, Sequence[Tensor]]]:
    """Losses `first` and following, one for each process, and their gradients."""
    number = first + accelerator.process_index
    loss = torch.zeros((), device=accelerator.device)
    for parameter in parameters:
        parameter.grad = None
    if number < count:
        loss = loss_of(number)
        accelerator.backward(loss)
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    losses = accelerator.gather(loss.detach().float().reshape(1)).tolist()
    gathered = [accelerator.gather(gradient[None]) for gradient in own]
    for place in range(min(len(losses), count - first)):
        yield losses[place], [gradients[place] for gradients in gathered]
