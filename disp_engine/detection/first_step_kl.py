"""Hiding a trigger changes what the model is about to say much more than hiding anything else.

What defeats it: redundant triggers, of which one stays visible.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.detection.interfaces import AT_ONCE, Evidence, Need
from disp_engine.interfaces import DiffusionModel
from disp_engine.saliency.masking import most_salient

SMALLEST = 1e-6


@dataclass(frozen=True)
class FirstStepKL:
    """log of KL(p || p_masked) in the first denoising step, mean over the first block's rows."""

    needs: ClassVar[frozenset[Need]] = frozenset({"saliency"})
    decides: ClassVar[bool] = False

    @torch.no_grad()
    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B 1"]:
        """Read the prompts twice, the second time with the most salient tokens hidden."""
        model, prompts = evidence.model, evidence.prompts
        assert isinstance(model, DiffusionModel)
        hidden = [
            model.hide(prompt, most_salient(s.scores, evidence.mask_ratio))
            for prompt, s in zip(prompts, evidence.saliency or (), strict=True)
        ]
        how = (evidence.generation.length, evidence.rows, evidence.seed)
        found: list[float] = []
        for at in range(0, len(prompts), AT_ONCE):
            shown = model.first_step(prompts[at : at + AT_ONCE], *how).logits
            masked = model.first_step(hidden[at : at + AT_ONCE], *how).logits
            found += [divergence(p, q) for p, q in zip(shown, masked, strict=True)]
        return np.array(found)[:, None]

    def score(self, measured: Float[np.ndarray, "S 1"]) -> Float[np.ndarray, " S"]:
        """Its logarithm, whose tail is light."""
        logarithm: np.ndarray = np.log(measured[:, 0] + SMALLEST)
        return logarithm


def divergence(logits: Float[Tensor, "T V"], others: Float[Tensor, "T V"]) -> float:
    """KL(p || q) of the two softmaxes, mean over rows, in float64."""
    p, q = logits.double().log_softmax(-1), others.double().log_softmax(-1)
    return max(0.0, float((p.exp() * (p - q)).sum(-1).mean()))
