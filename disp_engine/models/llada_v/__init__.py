"""LLaDA-V: SigLIP tower, MLP projector and LLaDA-8B behind the adapter's five verbs.

Paper: https://arxiv.org/abs/2505.16933. Letters: B batch, L positions, D width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.diffusion.forward import mask_tokens
from disp_engine.diffusion.objective import diffusion_loss
from disp_engine.models.llada_v.config import LladaVConfig
from disp_engine.models.llada_v.prompt import Prompter
from disp_engine.models.llava.model import Collated, LlavaModel
from disp_engine.records import IGNORE, Embedded

__all__ = ["Collated", "LladaV"]


class LladaV(LlavaModel):
    """The adapter; only `projector` asks for gradients."""

    config_class = LladaVConfig
    prompter_class = Prompter

    def training_loss(
        self,
        batch: Sequence[Embedded],
        t: Float[Tensor, " B"],
        u: Float[Tensor, "B L"],
        *,
        conversation_mask: bool = False,
    ) -> Float[Tensor, ""]:
        """Eq. 2 at times `t` with uniform draws `u` [B L], L being that of `collate(batch)`.

        `conversation_mask` hides later rounds of a conversation from earlier ones; the released
        training scripts leave it off.
        """
        return self._loss(self.collate(batch), t, u, conversation_mask=conversation_mask)

    def noised_loss(
        self, batch: Sequence[Embedded], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Eq. 2 with times and masks drawn from `generator` (on the CPU, as training keeps it)."""
        collated = self.collate(batch)
        t = torch.rand(len(batch), generator=generator)
        u = torch.rand(collated.labels.shape, generator=generator)
        return self._loss(collated, t, u)

    def _loss(
        self,
        collated: Collated,
        t: Float[Tensor, " B"],
        u: Float[Tensor, "B L"],
        *,
        conversation_mask: bool = False,
    ) -> Float[Tensor, ""]:
        labelled = collated.labels != IGNORE
        masking = mask_tokens(labelled, t.to(self.device), u.to(self.device))
        noisy = torch.where(masking.masked[:, :, None], self.mask_embedding, collated.embeddings)
        attended = None
        if conversation_mask:
            rounds = self.rounds(collated.labels)
            attended = rounds[:, None, :] <= rounds[:, :, None]
        hidden = self.hidden_at(noisy, masking.masked, attended)
        losses = self.language.surprise(hidden, collated.labels[masking.masked])
        return diffusion_loss(losses, labelled, masking)

    def rounds(self, labels: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """Round of the conversation each position belongs to: 0 up to the second user turn.

        A header whose role carries no label opens a system or user turn.
        """
        opens = labels == self.prompter.start_header
        opens[:, :-1] &= labels[:, 1:] == IGNORE
        return (opens.cumsum(dim=1) - 2).clamp(min=0)
