"""Recordings of official LLaDA-V."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from disp_engine.diffusion.attention import Attention
from disp_engine.diffusion.forward import mask_tokens
from disp_engine.diffusion.row import Row, Words
from disp_engine.diffusion.sampler import _advance
from disp_engine.interfaces import Generation
from disp_engine.records import IGNORE, Embedded
from tests.recordings.comparison import ACTIVATION, EXACT, GRADIENT
from tests.recordings.llava import LlavaRecording


class LladaVRecording(LlavaRecording):
    """Padding is labelled; the loss is weighted by 1/p."""

    @property
    def label_padding(self) -> int:  # type: ignore[override]
        pad: int = self.model.prompter.pad
        return pad

    def denoised(self, prompt: Embedded, settings: Mapping[str, Any]) -> Int[Tensor, " T"]:
        if "n_mask_left" not in settings:
            return super().denoised(prompt, settings)
        return self.denoised_with_pictures(prompt, settings)

    def denoised_with_pictures(
        self, prompt: Embedded, settings: Mapping[str, Any]
    ) -> Int[Tensor, " T"]:
        """What the official sampler does with hidden pictures.

        It finds masks by comparing embeddings, so visual tokens compete with the response for
        commits, and masks are left in the response. Ours tracks ids; to show that this is the whole
        of the difference, all positions from the first picture on are given to it as the response.
        """
        generation, begin = self.generation(settings), prompt.spans[0][0]
        words = Words(self.model.prompter.mask, self.model.prompter.suppressed)
        ids = torch.full((len(prompt.embeddings) + generation.length,), words.mask)
        ids[: len(prompt.embeddings)][~prompt.visual()] = self.text_ids(settings["case"])
        row = Row(prompt.embeddings[:begin].detach(), ids[begin:], words, None)
        steps = settings["steps"] * generation.block_length // generation.length
        first = len(row.ids) - generation.length
        for start in range(first, len(row.ids), generation.block_length):
            end = start + generation.block_length
            row.begin(start, end, steps, generation.schedule)
            for step in range(steps):
                with torch.inference_mode():
                    _advance(self.model, [row], end, step, generation, Attention.FULL, None)
        return row.ids[-generation.length :]

    def text_ids(self, case: str) -> Int[Tensor, " T"]:
        ids: Tensor = self.model.tokenise_prompt(self.turns(case)).ids
        return ids[ids >= 0]

    def generation(self, settings: Mapping[str, Any]) -> Generation:
        return Generation(
            length=settings["gen_length"],
            block_length=settings["block_length"],
            steps=settings["steps"],
            stop=tuple(settings.get("stopping_criteria", ())),
            guidance=settings.get("cfg_scale", 0.0),
            suffix=settings.get("generation_suffix", ""),
        )

    def training(self, tag: str) -> Mapping[str, tuple[Tensor, float]]:
        t, u = self.inputs[f"train.{tag}.t"], self.inputs[f"train.{tag}.u"]
        batch = self.examples(tag)
        collated = self.model.collate(batch)
        masking = mask_tokens(collated.labels != IGNORE, t, u)
        hides = self.meta["training"][tag]["use_conversation_mask"]
        loss = self.model.training_loss(batch, t, u, conversation_mask=hides)
        loss.backward()
        return {
            "inputs_embeds_clean": (collated.embeddings, ACTIVATION),
            "merged_labels": (collated.labels, EXACT),
            "conversation_ids": (self.model.rounds(collated.labels), EXACT),
            "masked": (masking.masked, EXACT),
            "p_mask": (masking.p, ACTIVATION),
            "loss": (loss, GRADIENT),
        }
