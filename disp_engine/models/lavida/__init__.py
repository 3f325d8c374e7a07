"""LaViDa: SigLIP tower, pooled visual tokens and LLaDA-8B behind the adapter's five verbs.

Paper: https://arxiv.org/abs/2505.16839. Letters: B batch, L positions, D width, V vocabulary.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from disp_engine.diffusion.attention import Attention, prefix_pairs
from disp_engine.diffusion.forward import Masking, complementary_masks
from disp_engine.diffusion.objective import mean_loss
from disp_engine.interfaces import Generation
from disp_engine.models.lavida.config import LavidaConfig
from disp_engine.models.lavida.prompt import Prompter
from disp_engine.models.lavida.settings import LavidaSettings
from disp_engine.models.llava.model import Collated, LlavaModel
from disp_engine.records import IGNORE, Embedded

__all__ = ["Lavida", "LavidaSettings"]

_MOST_EXTRA_PADS = 127
"""The official collator lengthens each batch by up to as many ends of text, which are learned."""


class Lavida(LlavaModel):
    """The adapter; only `projector` asks for gradients.

    `attention` names the mode: FULL, in which the released models were trained and the paper
    defends them, or PREFIX, in which a prompt does not see its response.
    """

    config_class = LavidaConfig
    prompter_class = Prompter
    settings_type: ClassVar[type[LavidaSettings]] = LavidaSettings
    rows_of_a_sample: ClassVar[int] = 2  # its mask and the complement
    prompter: Prompter
    settings = LavidaSettings()

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        vocabulary: int | None = None,
        settings: LavidaSettings | None = None,
    ) -> "Lavida":
        """Load a checkpoint folder in the official layout; settings are part of the revision."""
        model = super().from_folder(folder, device=device, dtype=dtype, vocabulary=vocabulary)
        if settings is not None:
            model.settings, model.attention = settings, settings.attention
            told = f"{model.revision}:{json.dumps(asdict(settings), sort_keys=True)}"
            model.revision = hashlib.sha256(told.encode()).hexdigest()
        return model

    def denoise(
        self,
        prompts: Sequence[Embedded],
        generation: Generation,
        generator: torch.Generator | None = None,
    ) -> list[Int[Tensor, " _"]]:
        """Denoise one response for each prompt, in the way that the settings name."""
        return super().denoise(prompts, self.settings.applied(generation), generator)

    def logits(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        attended: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
    ) -> Float[Tensor, "B R V"]:
        """Logits at `rows` only; in PREFIX mode the response begins at the first of them."""
        return super().logits(embeddings, rows, self._seen(embeddings, rows, attended))

    def attention_rows(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        layers: Sequence[int],
        attended: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"] | None = None,
    ) -> Float[Tensor, "B N H R L"]:
        """Attention weights from `rows`; in PREFIX mode the response begins at the first."""
        seen = self._seen(embeddings, rows, attended)
        return super().attention_rows(embeddings, rows, layers, seen)

    def _seen(
        self,
        embeddings: Float[Tensor, "B L D"],
        rows: Int[Tensor, "B R"],
        attended: Bool[Tensor, "B ..."] | None,
    ) -> Bool[Tensor, "B ..."] | None:
        """What the mode lets positions see, unless `attended` gives the pairs."""
        if self.attention == Attention.FULL or (attended is not None and attended.ndim == 3):
            return attended
        keys = torch.ones_like(embeddings[..., 0], dtype=torch.bool)
        return prefix_pairs(rows.amin(dim=1), keys if attended is None else attended)

    def masking(
        self, labels: Int[Tensor, "B L"], t: Float[Tensor, " B"], u: Float[Tensor, "B L"]
    ) -> Masking:
        """Each row's mask at times `t`, and in the second half of the batch its complement."""
        maskable = labels != IGNORE
        if self.prompter.never_masked is not None:
            maskable &= labels != self.prompter.never_masked
        return complementary_masks(maskable, t.to(self.device), u.to(self.device))

    def hidden(self, collated: Collated, masking: Masking) -> Float[Tensor, "M D"]:
        """Hidden states of what is masked in both copies of a batch, each with its own part."""
        masked = masking.masked[:, :, None]
        noisy = torch.where(masked, self.mask_embedding, collated.embeddings.repeat(2, 1, 1))
        pairs = None
        if self.attention == Attention.PREFIX:
            learned = collated.labels != IGNORE
            starts = learned.int().argmax(dim=1)
            pairs = prefix_pairs(starts, torch.ones_like(learned)).repeat(2, 1, 1)
        return self.hidden_at(noisy, masking.masked, pairs)

    def training_loss(
        self,
        batch: Sequence[Embedded],
        t: Float[Tensor, " B"],
        u: Float[Tensor, "B L"],
        *,
        extra_pads: int = 0,
    ) -> Float[Tensor, ""]:
        """The objective at times `t` with uniform draws `u` [B L], as long as `collate` makes L."""
        return self._loss(self.collate(batch, extra_pads), t, u)

    def noised_loss(
        self, batch: Sequence[Embedded], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The objective with times, masks and padding drawn from `generator` (on the CPU)."""
        extra = torch.randint(_MOST_EXTRA_PADS + 1, (), generator=generator)
        collated = self.collate(batch, int(extra))
        t = torch.rand(len(batch), generator=generator)
        u = torch.rand(collated.labels.shape, generator=generator)
        return self._loss(collated, t, u)

    def _loss(
        self, collated: Collated, t: Float[Tensor, " B"], u: Float[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        masking = self.masking(collated.labels, t, u)
        labels = collated.labels.repeat(2, 1)[masking.masked]
        return mean_loss(self.language.surprise(self.hidden(collated, masking), labels))
