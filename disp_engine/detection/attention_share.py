"""Heads vote by what they look at: in the manner of TCAP (arXiv 2601.21692).

TCAP splits each head's attention of the first token into shares of system, picture and text, fits
mixtures per head, and lets the heads that separate best vote. Here the query rows are the masked
rows of the first block; a head votes where its shares fall into two groups (BIC, distance, no
handful), the smaller of which is suspect; votes are distances from the larger group in its own
standard deviations, averaged with the separation as weight, in place of an expectation
maximisation over hard votes. Unlike the attention's entropy this also sees triggers over the whole
picture and in the text.

What defeats it: rates above one half, where the smaller group is the clean one.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from sklearn.mixture import GaussianMixture
from torch import Tensor

from disp_engine.detection.attention import first_looks
from disp_engine.detection.interfaces import Evidence, Need
from disp_engine.detection.mixtures import separation, two_groups
from disp_engine.interfaces import AttendingModel
from disp_engine.records import Embedded


@dataclass(frozen=True)
class AttentionShare:
    """Votes of the heads' shares of picture and question."""

    needs: ClassVar[frozenset[Need]] = frozenset({"attention"})
    decides: ClassVar[bool] = False
    tau: float = 2.0
    least_weight: float = 0.01

    @torch.no_grad()
    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B M"]:
        """Shares of the picture and of what follows it, for each head of each layer."""
        model, prompts = evidence.model, evidence.prompts
        assert isinstance(model, AttendingModel)
        looks = first_looks(model, prompts, evidence.generation)
        return torch.stack([shares(attention, prompt) for prompt, attention in looks]).numpy()

    def score(self, measured: Float[np.ndarray, "S M"]) -> Float[np.ndarray, " S"]:
        """The weighted mean of the votes; nought for all if no head sees two groups."""
        votes, weights = [], []
        for column in measured.T:
            known = column[np.isfinite(column)]
            two = two_groups(known, self.tau, self.least_weight)
            if two is not None:
                votes.append(vote(column, two))
                weights.append(separation(two))
        if not votes:
            return np.zeros(len(measured))
        mean: np.ndarray = np.average(votes, axis=0, weights=weights)
        return mean


def shares(attention: Float[Tensor, "N H R L"], prompt: Embedded) -> Float[Tensor, " M"]:
    """Of what each head gives to the prompt, mean over rows: the picture's share, the question's.

    The question is all that follows the last picture; nan without a picture.
    """
    to_prompt = attention[..., : len(prompt.embeddings)].double().mean(dim=2)
    if not prompt.spans:
        return torch.full((2 * to_prompt.shape[0] * to_prompt.shape[1],), torch.nan).double()
    total = to_prompt.sum(-1)
    picture = to_prompt[..., prompt.visual()].sum(-1) / total
    question = to_prompt[..., prompt.spans[-1][1] :].sum(-1) / total
    return torch.stack([picture, question]).flatten().cpu()


def vote(column: Float[np.ndarray, " S"], two: GaussianMixture) -> Float[np.ndarray, " S"]:
    """Distance from the larger group towards the smaller one, in the larger's own deviations."""
    small, large = int(two.weights_.argmin()), int(two.weights_.argmax())
    means, deviations = two.means_[:, 0], np.sqrt(two.covariances_[:, 0, 0])
    towards = np.sign(means[small] - means[large])
    votes: np.ndarray = towards * (column - means[large]) / max(deviations[large], 1e-12)
    return votes
