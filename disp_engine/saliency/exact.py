"""The quadratic form itself (Eq. 5), for models small enough to compute it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Embedded
from disp_engine.saliency.estimator import SaliencySettings, top_logit_fisher


def exact_saliency(
    model: DiffusionModel, prompt: Embedded, settings: SaliencySettings
) -> Float[Tensor, " Lv"]:
    """s_i = 1/2 (J_i d)^T F (J_i d) with d = e_mask - e_i, by T*K backward passes.

    F is block diagonal over rows, so s_i is half the sum over rows of the variance under p of
    the directional derivatives of the kept logits.
    """
    return changes(model, prompt, settings).exact()


@dataclass(frozen=True)
class Changes:
    """J_i d for every row and kept logit, and the softmax over the kept logits."""

    p: Float[Tensor, "T K"]
    j: Float[Tensor, "T K Lv"]
    starts: int

    def exact(self) -> Float[Tensor, " Lv"]:
        """The quadratic form."""
        weights = self.p[..., None]
        variance = (weights * self.j**2).sum(1) - (weights * self.j).sum(1) ** 2
        return 0.5 * variance.sum(0) / self.starts

    def saliency(self, q: Float[Tensor, "m T K"]) -> Float[Tensor, " Lv"]:
        """What the estimator makes of probes q (Eqs. 6 to 8), without a further pass."""
        squares = torch.einsum("mtk,tkv->mv", q, self.j).square()
        return 0.5 * squares.mean(0) / self.starts


def changes(model: DiffusionModel, prompt: Embedded, settings: SaliencySettings) -> Changes:
    """Differentiate every kept logit of one prompt's rows."""
    step = model.first_step([prompt], settings.length, settings.rows, settings.seed)
    p, kept = top_logit_fisher(step.logits, settings.top_logits)
    z = step.logits.gather(-1, kept)[0]
    visual = prompt.visual()
    delta = (step.hidden - step.shown.detach())[0, : len(visual)].double()
    rows = []
    for logit in z.flatten():
        (g,) = torch.autograd.grad(logit, step.shown, retain_graph=True)
        rows.append((g[0, : len(visual)].double() * delta).sum(-1)[visual])
    return Changes(p[0], torch.stack(rows).view(*z.shape, -1), step.starts)
