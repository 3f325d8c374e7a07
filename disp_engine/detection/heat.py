"""Saliency of visual tokens as a map of the picture."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

GRID = 16
"""Cells on a side of a map, whatever the family's own grid is."""


def heat_map(
    scores: Float[Tensor, " T"], boxes: Float[Tensor, "T 4"], side: int = GRID
) -> Float[np.ndarray, "side side"]:
    """Spread each token's score evenly over its box, and give each cell its share; sums to one.

    Tokens of no place are left out; a map of nothing is nought.
    """
    known = boxes.isfinite().all(dim=1)
    box, score = boxes[known].double(), scores[known].double().clamp(min=0)
    edges = torch.arange(side + 1, dtype=torch.float64) / side
    across = _overlap(box[:, 0], box[:, 2], edges)
    down = _overlap(box[:, 1], box[:, 3], edges)
    found = torch.einsum("t,ty,tx->yx", score, down, across).float().numpy()
    total = float(found.sum())
    return found / total if total > 0 else found


def _overlap(
    low: Float[Tensor, " T"], high: Float[Tensor, " T"], edges: Float[Tensor, " E"]
) -> Float[Tensor, "T C"]:
    """The share of each interval that lies in each cell."""
    begin = torch.maximum(low[:, None], edges[:-1])
    end = torch.minimum(high[:, None], edges[1:])
    return (end - begin).clamp(min=0) / (high - low)[:, None]
