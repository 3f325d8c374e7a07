"""Random vectors whose covariance is the Fisher information, without ever forming it."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Estimator = Literal["orthogonal", "eigen", "gaussian"]
"""Which random vectors: orthogonal patterns or signs in the eigenbasis, or the paper's draws."""


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
    variance, basis = _directions(p)
    signs = _signs((count, 1, *p.shape[1:]), generator).to(p.device)
    q: Tensor = (basis @ (signs * variance.sqrt())[..., None])[..., 0]
    return q.to(p.dtype)


def orthogonal_probes(
    p: Float[Tensor, "B T K"], count: int, generator: torch.Generator
) -> Float[Tensor, "m B T K"]:
    """As `eigen_probes`, with columns of orthogonal matrices in place of independent signs.

    A sample's T*K directions are taken by falling variance, as many at a time as there are probes,
    and each such group gets a random orthogonal matrix, a direction a column. Pairs of directions
    within a group then add nothing to the error, and those of the largest variance are pairs of
    the first. With T*K probes or more the estimate is the exact form.
    """
    variance, basis = _directions(p)
    directions = variance[0].numel()
    size = min(count, directions)
    groups = -(-directions // size)
    normal = torch.randn(
        (groups, count, size), generator=generator, dtype=torch.float64, device=generator.device
    )
    columns = torch.linalg.qr(normal).Q.transpose(0, 1).flatten(1)[:, :directions]
    columns = (columns * count**0.5 * _signs((directions,), generator)).to(p.device)
    rank = variance.flatten(1).argsort(descending=True, stable=True).argsort()
    patterns = columns[:, rank].unflatten(2, variance.shape[1:])
    q: Tensor = (basis @ (patterns * variance.sqrt())[..., None])[..., 0]
    return q.to(p.dtype)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "..."]:
    drawn = torch.randint(2, shape, generator=generator, device=generator.device)
    return (2 * drawn - 1).double()


def _directions(
    p: Float[Tensor, "B T K"],
) -> tuple[Float[Tensor, "B T K"], Float[Tensor, "B T K K"]]:
    """L and V of diag(p) - pp^T = V L V^T in each row."""
    f = torch.diag_embed(p.double()) - p.double()[..., :, None] * p.double()[..., None, :]
    variance, basis = torch.linalg.eigh(f)
    variance[..., 0] = 0  # F 1 = 0; rounding may leave more, or less
    return variance.clamp(min=0), basis


PROBES: Mapping[Estimator, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "orthogonal": orthogonal_probes,
    "eigen": eigen_probes,
    "gaussian": gaussian_probes,
}
