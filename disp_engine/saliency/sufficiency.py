"""What each visual token brings about alone, all others hidden.

Tokens any one of which suffices for an attack hide one another: hiding one changes nothing, so no
curvature at the prompt tells of it. But each of them shown alone brings the whole answer back,
as few tokens of an honest picture do. The measure is known from rationales as sufficiency
(DeYoung et al., ACL 2020); here it is of the first denoising step.

It costs Lv + 2 forward passes of each prompt and no backward pass, where the paper's score costs
one and m: for pictures of some hundred tokens. What defeats it: triggers that need many tokens at
once, such as a blended picture.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Embedded

ROWS_AT_ONCE = 1024
"""Response rows whose logits are held at a time."""


@torch.no_grad()
def sufficiency(
    model: DiffusionModel, prompt: Embedded, length: int, rows: int, seed: int
) -> Float[Tensor, " Lv"]:
    """Nats by which each token alone makes the whole picture's answer likelier than none does.

    s_i = E[log p(y | i alone) - log p(y | nothing)] over y ~ p(. | all), summed over the first
    block's rows while all of the response is masked.
    """
    size = int(prompt.visual().sum())
    alone = ~torch.eye(size, dtype=torch.bool)
    hidden = torch.cat([torch.zeros(1, size), torch.ones(1, size), alone]).bool()
    parts: list[Tensor] = []
    for masks in torch.split(hidden, max(2, ROWS_AT_ONCE // rows)):
        shown = [model.hide(prompt, mask) for mask in masks]
        step = model.first_step(shown, length, rows, seed)
        log_p = step.logits.float().log_softmax(-1)
        if not parts:
            p = log_p[0].exp()
        parts.append((p * log_p).sum(dim=(-2, -1)) / step.starts)
    likely = torch.cat(parts)
    return (likely[2:] - likely[1]).cpu()
