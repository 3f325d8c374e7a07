"""Where the curvature is taken: at the prompt itself, or also on the way to a hidden picture.

Tokens any one of which suffices for an attack hide one another: at the prompt itself none of them
has much curvature, since the others stand in for it. If all visual tokens fade towards what hides
them, the redundant ones come together to the point where the attack gives way. The idea of a path
is that of integrated gradients (Sundararajan et al., arXiv 1703.01365); here the quadratic form of
Eq. 5 is averaged along it, its direction e_mask - e_i being that of the prompt itself.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Embedded
from disp_engine.saliency.scores import Score


def stations(score: Score, probes: int) -> list[tuple[float, int]]:
    """How far visual tokens have gone, and how many of the probes are spent there.

    The first station is always the prompt itself; along a path each probe has one of its own.
    """
    if score == "paper":
        return [(0.0, probes)]
    return [(number / probes, 1) for number in range(probes)]


@torch.no_grad()
def faded(model: DiffusionModel, prompts: Sequence[Embedded], point: float) -> list[Embedded]:
    """Prompts whose visual tokens have all gone a share of the way towards what hides them.

    A family that hides tokens by not reading them has no such way: its prompts stay as they are.
    """
    return [_faded(model, prompt, point) for prompt in prompts] if point else list(prompts)


def _faded(model: DiffusionModel, prompt: Embedded, point: float) -> Embedded:
    everything = torch.ones(int(prompt.visual().sum()), dtype=torch.bool)
    hidden = model.hide(prompt, everything).embeddings
    return replace(prompt, embeddings=torch.lerp(prompt.embeddings, hidden, point))
