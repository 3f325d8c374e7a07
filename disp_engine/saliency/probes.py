"""Random vectors whose covariance is the Fisher information, without ever forming it."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Estimator = Literal["eigen", "gaussian"]
"""Which random vectors: signs in the eigenbasis, or the paper's Gaussian draws."""


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


def eigen_probes(
    p: Float[Tensor, "B T K"], count: int, generator: torch.Generator
) -> Float[Tensor, "m B T K"]:
    """Draw q = V L^(1/2) e, where diag(p) - pp^T = V L V^T in each row and e are random signs.

    The covariance is that of Eq. 3, as with `gaussian_probes`, but signs square to exactly 1:
    the estimate's variance keeps only what comes of pairs of different directions.
    """
    signs = torch.randint(
        2, (count, 1, *p.shape[1:]), generator=generator, device=generator.device
    ).to(p.device)
    f = torch.diag_embed(p.double()) - p.double()[..., :, None] * p.double()[..., None, :]
    variance, basis = torch.linalg.eigh(f)
    variance[..., 0] = 0  # F 1 = 0; rounding may leave more, or less
    scaled = (2 * signs - 1) * variance.clamp(min=0).sqrt()
    q: Tensor = (basis @ scaled[..., None])[..., 0]
    return q.to(p.dtype)


PROBES: Mapping[Estimator, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "eigen": eigen_probes,
    "gaussian": gaussian_probes,
}
