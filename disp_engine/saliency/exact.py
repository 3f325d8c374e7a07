"""The quadratic form itself (Eq. 5), for models small enough to compute it."""

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
    step = model.first_step([prompt], settings.length, settings.rows, settings.seed)
    p, kept = top_logit_fisher(step.logits, settings.top_logits)
    z = step.logits.gather(-1, kept)[0]
    visual = prompt.visual()
    delta = (step.hidden - step.shown.detach())[0, : len(visual)].double()
    total = torch.zeros(int(visual.sum()), dtype=torch.float64)
    for row in range(z.shape[0]):
        changes = []
        for k in range(z.shape[1]):
            (g,) = torch.autograd.grad(z[row, k], step.shown, retain_graph=True)
            changes.append((g[0, : len(visual)].double() * delta).sum(-1)[visual])
        j = torch.stack(changes)  # [K Lv]
        weights = p[0, row][:, None]
        total += 0.5 * ((weights * j**2).sum(0) - (weights * j).sum(0) ** 2)
    return total / step.starts
