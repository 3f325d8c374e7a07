"""Recordings of transformers' DiffusionGemma: one prompt with pictures, one canvas."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from disp_engine.models.diffusion_gemma import DiffusionGemma
from disp_engine.models.diffusion_gemma.backbone import Prompts
from disp_engine.models.diffusion_gemma.images import Patches
from disp_engine.records import Embedded
from tests.recordings.comparison import ACTIVATION, GRADIENT, Case, Comparison, compare


class DiffusionGemmaRecording:
    """A fixture folder and the adapter loaded from it; it is driven by ids, without a tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.inputs = load_file(folder / "inputs.safetensors")
        self.expected = load_file(folder / "expected.safetensors")
        self.model = DiffusionGemma.from_folder(folder)
        image = self.meta.get("image_token_id", self.model.config.image_token_id)
        self.visual = self.inputs["input_ids"] == image

    def cases(self) -> Iterator[Case]:
        """What there is to compare: every recorded tensor, by its name."""
        for name in self.expected:
            yield name, partial(self._compared, name)

    def _compared(self, name: str) -> Mapping[str, Comparison]:
        quantities: Mapping[str, Callable[[], Tensor]] = {
            "soft_tokens": lambda: self.soft_tokens,
            "encoder_last_hidden_state": self.encoder_hidden,
            "first_step_logits": self.logits,
            "first_step_logits_plain_forward": lambda: self.logits(bidirectional=False),
            "self_conditioned_logits": lambda: self.logits(
                guess=self.inputs["self_conditioning_logits"]
            ),
            "grad_soft_tokens": lambda: self.gradients["grad_soft_tokens"],
            "grad_projector": lambda: self.gradients["grad_projector"],
        }
        tolerance = GRADIENT if name.startswith("grad_") else ACTIVATION
        got = quantities[name]().detach()
        case, want = "native", self.expected[name]
        return {name: compare(case, name, got.reshape(want.shape), want, tolerance)}

    @property
    def soft_tokens(self) -> Float[Tensor, "N D"]:
        """Visual tokens of all pictures in order, from the recorded patches."""
        pixels, positions = self.inputs["pixel_values"], self.inputs["image_position_ids"]
        merged = self.model.config.vision_config.pooling_kernel_size**2
        counts = (positions >= 0).all(dim=-1).sum(dim=1) // merged
        rows = self.model.tower_rows(Patches(pixels, positions, tuple(counts.tolist())))
        return torch.cat([self.model.project(row) for row in rows])

    def prompts(self, soft: Float[Tensor, "N D"], *, bidirectional: bool) -> Prompts:
        """The recorded rows of ids, their placeholders filled; a span for each run of them."""
        embeddings = self.model.backbone.token_embeddings(self.inputs["input_ids"])
        embeddings = embeddings.masked_scatter(self.visual[..., None], soft)
        rows = zip(embeddings, self.visual, strict=True)
        return Prompts.of(
            [Embedded(row, runs(marks) if bidirectional else ()) for row, marks in rows]
        )

    def logits(
        self,
        soft: Float[Tensor, "N D"] | None = None,
        guess: Float[Tensor, "B T V"] | None = None,
        *,
        bidirectional: bool = True,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the recorded canvas."""
        soft = self.soft_tokens if soft is None else soft
        backbone = self.model.backbone
        prefix = backbone.encode(self.prompts(soft, bidirectional=bidirectional))
        return backbone.logits(backbone.decode(prefix, self.inputs["canvas"], guess))

    def encoder_hidden(self) -> Float[Tensor, "B L D"]:
        prompts = self.prompts(self.soft_tokens, bidirectional=True)
        return self.model.backbone.encode(prompts).hidden

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Gradients of sum(q * logits) in the visual tokens and in the projector."""
        soft = self.soft_tokens
        soft.retain_grad()
        (self.inputs["q"] * self.logits(soft)).sum().backward()
        assert soft.grad is not None
        projector = self.model.projector.get_parameter("weight").grad
        assert projector is not None
        return {"grad_soft_tokens": soft.grad, "grad_projector": projector}


def runs(marks: Tensor) -> tuple[tuple[int, int], ...]:
    """Half-open intervals in which the marks are set."""
    found, at = [], 0
    for marked, run in groupby(marks.tolist()):
        length = len(list(run))
        if marked:
            found.append((at, at + length))
        at += length
    return tuple(found)
