"""How narrowly the model looks at the picture: BYE's measure (Rong et al., arXiv 2505.16916).

The rows are those of the first response block, all masked. Each layer's attention to the visual
tokens, averaged over heads and rows, is made to sum to one; its entropy over ln(Lv) is the layer's
measure.

What defeats it: triggers over the whole picture, which nothing looks at narrowly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.detection.attention import first_looks
from disp_engine.detection.interfaces import Evidence, Need
from disp_engine.detection.mixtures import two_groups
from disp_engine.interfaces import AttendingModel, Generation
from disp_engine.records import Embedded


@dataclass(frozen=True)
class AttentionEntropy:
    """One less the mean entropy over the layers that see two groups, or over all if none does."""

    needs: ClassVar[frozenset[Need]] = frozenset({"attention"})
    decides: ClassVar[bool] = False
    tau: float = 2.0
    least_weight: float = 0.01

    @torch.no_grad()
    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B N"]:
        """The entropy of each layer."""
        model, prompts = evidence.model, evidence.prompts
        assert isinstance(model, AttendingModel)
        return torch.stack(visual_entropies(model, prompts, evidence.generation)).double().numpy()

    def score(self, measured: Float[np.ndarray, "S N"]) -> Float[np.ndarray, " S"]:
        """Average the sensitive layers."""
        layers = measured.T
        told = [x for x in layers if two_groups(x, self.tau, self.least_weight) is not None]
        mean: np.ndarray = np.mean(told or layers, axis=0)
        return 1 - mean


def visual_entropies(
    model: AttendingModel, prompts: Sequence[Embedded], generation: Generation
) -> list[Float[Tensor, " N"]]:
    """Normalised entropy of each layer's attention from masked rows to the visual tokens.

    A prompt without at least two visual tokens has nothing to look at narrowly and gets ones.
    """
    found = []
    for prompt, attention in first_looks(model, prompts, generation):
        visual = prompt.visual()
        looks = attention[..., : len(visual)][..., visual].double().mean(dim=(1, 2))
        if looks.shape[-1] < 2:
            found.append(torch.ones(model.depth))
            continue
        p = looks / looks.sum(dim=-1, keepdim=True)
        entropy = torch.special.entr(p).sum(dim=-1) / math.log(p.shape[-1])
        found.append(entropy.float().cpu())
    return found
