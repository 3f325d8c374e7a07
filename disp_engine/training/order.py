"""Which samples meet at which step, and with which noise: functions of the seed and the step."""

import torch
from jaxtyping import Int
from torch import Tensor


def batch_indices(step: int, samples: int, batch_size: int, seed: int) -> Int[Tensor, " B"]:
    """The samples of one step: each epoch is a fresh permutation, its last batch may be short."""
    per_epoch = -(-samples // batch_size)
    epoch, place = divmod(step, per_epoch)
    generator = generator_for(seed, epoch, stream=0)
    order = torch.randperm(samples, generator=generator)
    return order[place * batch_size : (place + 1) * batch_size]


def generator_for(seed: int, number: int, stream: int) -> torch.Generator:
    """A generator that depends on nothing but its arguments, so no state need be saved."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + stream) % 2**63
    return torch.Generator().manual_seed(mixed)
