"""The official block loop: all rows' logits in every step, confidences in float64.

Masks are tracked by id at the response's own positions. LLaDA-V's released loop looks for the mask
embedding in the whole sequence instead, and so spends commits on visual tokens that DiSP has
hidden; there this loop is what that one means.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from benchmarks.reference.llama import Llama


@torch.no_grad()
def generate(
    model: Llama,
    prompt: Float[Tensor, "P D"],
    *,
    mask: int,
    suppressed: Sequence[int],
    length: int,
    block: int,
    steps: int,
    prefix: bool = False,
) -> Int[Tensor, " G"]:
    """Denoise one response of `length` tokens, `steps` over all blocks, at temperature 0.

    With `prefix` the prompt does not see the response (LaViDa's prefix-DLM), anew in each step.
    """
    ids = torch.full((length,), mask, device=prompt.device)
    start, per_block = len(prompt), steps // (length // block)
    seen = _prefix_pairs(start, length, prompt.device) if prefix else None
    for begin in range(0, length, block):
        end = begin + block
        for quota in _quotas(block, per_block):
            x = torch.cat([prompt, model.embedded(ids)])[None]
            scores = model.logits(x, seen).float()
            scores[..., list(suppressed)] = -torch.inf
            choice = scores.argmax(-1)
            p = scores.double().softmax(-1).gather(-1, choice[..., None])[..., 0]
            confidence = torch.full_like(p[0], -torch.inf)
            open_ = start + (ids[:end] == mask).nonzero()[:, 0]
            confidence[open_] = p[0, open_]
            best = confidence.topk(min(quota, len(open_))).indices
            ids[best - start] = choice[0, best]
    return ids


def _prefix_pairs(start: int, length: int, device: torch.device) -> Bool[Tensor, "L L"]:
    seen = torch.ones(start + length, start + length, dtype=torch.bool, device=device)
    seen[:start, start:] = False
    return seen


def _quotas(masks: int, steps: int) -> list[int]:
    share, rest = divmod(masks, steps)
    return [share + (step < rest) for step in range(steps)]
