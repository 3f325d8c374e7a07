"""Recordings of official LLaDA-V."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from disp_engine.diffusion.forward import mask_tokens
from disp_engine.interfaces import Generation
from disp_engine.records import IGNORE
from tests.recordings.comparison import ACTIVATION, EXACT, GRADIENT
from tests.recordings.llava import LlavaRecording


class LladaVRecording(LlavaRecording):
    """Padding is labelled; the loss is weighted by 1/p."""

    skipped: Mapping[str, str] = {
        "gen.visual_emask_official": "the official sampler finds masks by comparing embeddings and "
        "so fills visual tokens; a sampler that tracks ids does not reproduce this"
    }

    @property
    def label_padding(self) -> int:  # type: ignore[override]
        pad: int = self.model.prompter.pad
        return pad

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
