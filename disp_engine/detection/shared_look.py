"""What the pictures of surprising answers have in common.

A trigger is in the picture. Where pictures of one look have surprising answers, others of that look
are suspect too, even if their own answers are none: a trigger over the whole picture can hide from
the base model what makes an answer absurd. How much surprise a picture alone lets expect is what
ridge regression on other samples predicts.

What defeats it: marks that the tower does not see; honest pictures that look like the trigger's.

Letters: S samples, W width of a look.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.records import VisualFeatures

NAME = "shared_look"
WIDTH = 256
"""Directions kept of wider looks, drawn once and for all."""
FOLDS = 10
RIDGE = 10.0
"""Of the mean square of a look's entries, which are brought to one."""
FARTHEST = 10.0
"""Nats beyond which a surprise counts no more."""


def look(picture: VisualFeatures) -> Float[Tensor, " W"]:
    """Mean and spread of the tower's features over the picture's first tile."""
    features = picture.tiles[0].double()
    whole = torch.cat([features.mean(dim=0), features.std(dim=0)])
    if len(whole) <= WIDTH:
        return whole
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(WIDTH, len(whole), generator=generator, dtype=torch.float64)
    return directions @ whole


def predicted(
    surprises: Float[np.ndarray, " S"], looks: Float[np.ndarray, "S W"]
) -> Float[np.ndarray, " S"]:
    """By how many nats each sample's look lets expect more surprise than the mean.

    Each fold is predicted from the others; unknown surprises teach nothing.
    """
    x = (looks - looks.mean(axis=0)) / (looks.std(axis=0) + 1e-9)
    y, known = np.minimum(surprises, FARTHEST), np.isfinite(surprises)
    fold, found = np.arange(len(x)) % FOLDS, np.zeros(len(x))
    for number in range(FOLDS):
        here, there = fold == number, (fold != number) & known
        if there.sum() >= FOLDS:
            taught, centred = x[there], y[there] - y[there].mean()
            gram = taught.T @ taught + RIDGE * len(taught) * np.eye(x.shape[1])
            found[here] = x[here] @ np.linalg.solve(gram, taught.T @ centred)
    return found
