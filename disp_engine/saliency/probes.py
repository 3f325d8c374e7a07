"""Random vectors whose covariance is the Fisher information, without ever forming it."""

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian_probes(
    p: Float[Tensor, "B T K"], count: int, generator: torch.Generator
) -> Float[Tensor, "m B T K"]:
    """Draw q ~ N(0, diag(p) - pp^T) (Eq. 3, Algorithm 1 line 7) as sqrt(p) y - p <sqrt(p), y>.

    The same normal draws serve every row of the batch, so that a sample's score does not
    depend on its neighbours (the authors reseed for each sample).
    """
    y = torch.randn(
        (count, 1, *p.shape[1:]), generator=generator, dtype=torch.float64, device=generator.device
    ).to(p.device)
    root = p.double().sqrt()
    q = root * y - p.double() * (root * y).sum(-1, keepdim=True)
    return q.to(p.dtype)
