"""Which positions see which: all of them each other, or a prompt that does not see its answer.

Attended positions come as [B L] keys for every query, or as [B L L] pairs of query and key.
"""

from enum import StrEnum

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Attention(StrEnum):
    """FULL as in training; PREFIX is LaViDa's prefix-DLM, whose prompt can be kept as a cache."""

    FULL = "full"
    PREFIX = "prefix"


def prefix_pairs(starts: Int[Tensor, " B"], keys: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L L"]:
    """Pairs [query, key]: a response from `starts` on sees all of `keys`, a prompt only itself."""
    positions = torch.arange(keys.shape[1], device=keys.device)
    response = positions[None] >= starts[:, None]
    return keys[:, None, :] & (response[:, :, None] | ~response[:, None, :])
