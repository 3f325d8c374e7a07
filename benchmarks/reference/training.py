"""LLaDA-V's training loss (Eq. 2) as its released code has it: float32 logits of every row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from benchmarks.reference.llama import Llama
from disp_engine.records import IGNORE

_EPSILON = 1e-3


def loss(
    model: Llama,
    embeddings: Float[Tensor, "L D"],
    labels: Int[Tensor, " L"],
    e_mask: Float[Tensor, " D"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Eq. 2 of one example, noised by a time and then one draw for each position."""
    t = torch.rand(1, generator=generator).to(embeddings.device)
    u = torch.rand((1, len(labels)), generator=generator)[0].to(embeddings.device)
    p = (1 - _EPSILON) * t + _EPSILON
    learned = labels != IGNORE
    masked = (u < p) & learned  # Eq. 1
    noisy = torch.where(masked[:, None], e_mask, embeddings)
    logits = model.logits(noisy[None]).float()[0]
    surprise = functional.cross_entropy(logits[masked], labels[masked], reduction="none")
    return (surprise / p).sum() / learned.sum()
