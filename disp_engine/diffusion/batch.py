"""Prompts of different lengths side by side, each followed by its own masked response."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.interfaces import MaskedDenoiser
from disp_engine.records import Embedded, FirstStep


@dataclass(frozen=True)
class RaggedBatch:
    """B prompts right-padded to one length.

    `rows` [B T] are the response positions; `attended` [B L] is None when nothing is padding.
    """

    embeddings: Float[Tensor, "B L D"]
    rows: Int[Tensor, "B T"]
    attended: Bool[Tensor, "B L"] | None


def masked_responses(
    model: MaskedDenoiser, prompts: Sequence[Embedded], length: int
) -> RaggedBatch:
    """Build E_0 = [E_prompt; 1_T e_mask^T] for each prompt (section 3.3)."""
    device = model.mask_embedding.device
    starts = torch.tensor([len(prompt.embeddings) for prompt in prompts], device=device)
    longest = int(starts.max()) + length
    embeddings = model.mask_embedding.detach().new_zeros(
        len(prompts), longest, len(model.mask_embedding)
    )
    for row, prompt in enumerate(prompts):
        size = len(prompt.embeddings)
        embeddings[row, :size] = prompt.embeddings.detach()
        embeddings[row, size : size + length] = model.mask_embedding.detach()
    positions = torch.arange(longest, device=device)
    attended = positions < (starts + length)[:, None]
    rows = starts[:, None] + torch.arange(length, device=device)
    return RaggedBatch(embeddings, rows, None if bool(attended.all()) else attended)


def masked_first_step(
    model: MaskedDenoiser, prompts: Sequence[Embedded], length: int, rows: int
) -> FirstStep:
    """The first step of masked diffusion: all responses masked, one beginning for each."""
    batch = masked_responses(model, prompts, length)
    embeddings = batch.embeddings.detach().requires_grad_()
    logits = model.logits(embeddings, batch.rows[:, :rows], batch.attended)
    return FirstStep(logits, embeddings, model.mask_embedding.detach().expand_as(embeddings))
