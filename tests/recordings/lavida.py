"""Recordings of official LaViDa."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.diffusion.attention import Attention
from disp_engine.diffusion.schedule import Schedule
from disp_engine.interfaces import Generation
from disp_engine.models.llava.images import pool
from disp_engine.records import IGNORE, Embedded
from tests.recordings.comparison import (
    ACTIVATION,
    EXACT,
    GRADIENT,
    Case,
    Comparison,
    compare,
    named,
)
from tests.recordings.llava import LlavaRecording, Quantity


class LavidaRecording(LlavaRecording):
    """Two modes of attention, two copies of each training row, and step schedules."""

    label_padding = IGNORE

    def cases(self) -> Iterator[Case]:
        yield from super().cases()
        yield "schedules", self.compare_schedules

    def quantities(
        self, prompt: Embedded, tiles: Float[Tensor, "N P C"], length: int
    ) -> dict[str, Quantity]:
        found = super().quantities(prompt, tiles, length)
        found["pooled"] = lambda: pool(self.model.project(tiles), self.model.config)
        found["response_logits_prefix_lm"] = lambda: self.prefixed(prompt.embeddings, length)
        masked = self.without_pictures(prompt)
        found["response_logits_prefix_lm_visual_emask"] = lambda: self.prefixed(masked, length)
        return found

    def gradients(self, case: str) -> dict[str, Quantity]:
        def prefixed() -> Tensor:
            with self.mode(Attention.PREFIX):
                return self.visual_gradient(case)

        return super().gradients(case) | {"grad_visual_prefix_lm": prefixed}

    def prefixed(self, embeddings: Float[Tensor, "L D"], length: int) -> Float[Tensor, "R V"]:
        with self.mode(Attention.PREFIX):
            return self.response(embeddings, length)

    @contextmanager
    def mode(self, attention: Attention) -> Iterator[None]:
        self.model.attention = attention
        try:
            yield
        finally:
            self.model.attention = Attention.FULL

    def denoised(self, prompt: Embedded, settings: Mapping[str, Any]) -> Int[Tensor, " T"]:
        if settings.get("visual_emask"):
            prompt = replace(prompt, embeddings=self.without_pictures(prompt))
        with self.mode(_attention(settings)):
            return super().denoised(prompt, settings)

    def generation(self, settings: Mapping[str, Any]) -> Generation:
        length, block = settings["max_new_tokens"], settings["block_length"]
        steps = length // (length // block)
        if settings.get("step_per_block"):
            steps = min(settings["step_per_block"], block)
        elif settings.get("step_ratio"):
            steps = int(steps * settings["step_ratio"])
        return Generation(
            length=length,
            block_length=block,
            steps=steps * (length // block),
            stop=(),
            remasking={"entrophy": "entropy"}.get(
                remasking := settings.get("remasking", "low_confidence"), remasking
            ),
            schedule=_schedule(settings.get("schedule"), settings.get("schedule_kwargs") or {}),
        )

    def training(self, tag: str) -> Mapping[str, tuple[Tensor, float]]:
        t, u = self.inputs[f"train.{tag}.t"], self.inputs[f"train.{tag}.u"]
        longest = max(len(tokens.ids) for tokens in self.tokenised(tag))
        extra = self.inputs[f"train.{tag}.input_ids"].shape[1] - longest
        batch = self.examples(tag, extra)
        collated = self.model.collate(batch, extra)
        with self.mode(_attention(self.meta["training"][tag])):
            masking = self.model.masking(collated.labels, t, u)
            hidden = self.model.hidden(collated, masking)
            loss = self.model.training_loss(batch, t, u, extra_pads=extra)
            loss.backward()
        twice = collated.labels.repeat(2, 1)
        return {
            "target_positions": (collated.labels != IGNORE, EXACT),
            "masked": (masking.masked, EXACT),
            "loss_labels": (twice.where(masking.masked, torch.tensor(IGNORE)), EXACT),
            "p_mask": (masking.p[: len(batch), None], ACTIVATION),
            "masked_logits": (self.model.language.logits(hidden), ACTIVATION),
            "loss": (loss, GRADIENT),
        }

    def compare_schedules(self) -> dict[str, Comparison]:
        """The table of commits a step, `masks|steps|curve|shift` to numbers."""
        found = []
        for key, want in self.meta.get("transfer_schedules", {}).items():
            masks, steps, curve, shift = key.split("|")
            schedule = _schedule(curve, {"shift": float(shift)} if shift else {})
            got = schedule.quotas(int(masks), int(steps))
            found.append(compare("schedules", key, torch.tensor(got), torch.tensor(want), EXACT))
        return named(found)


def _attention(settings: Mapping[str, Any]) -> Attention:
    return Attention.PREFIX if settings["prefix_lm"] else Attention.FULL


def _schedule(curve: str | None, options: Mapping[str, float]) -> Schedule:
    if curve in (None, "none"):
        return Schedule()
    return Schedule(curve, **options)  # type: ignore[arg-type]
