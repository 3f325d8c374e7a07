"""A poisoned answer is one that the base model would practically never give.

BYORn (arXiv 2606.02947) takes the responses whose mean surprise under the pre-trained model is
largest. Here the most surprising token counts, since an insertion or a swapped word is one token
among many, and the scale is kept: surprise is in nats, on which the verdict stands. The tuned model
is not asked: as long as it has not learned the attack, it finds the answer as surprising.

What defeats it: answers that the base model gives anyway; a base model to which honest answers are
as absurd, on data of a kind that it has never met.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.detection.interfaces import AT_ONCE, Evidence, Need
from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Embedded


@dataclass(frozen=True)
class ResponseLikelihood:
    """The surprise, under the base projector, of a response's most surprising token."""

    needs: ClassVar[frozenset[Need]] = frozenset({"base"})
    decides: ClassVar[bool] = True

    @torch.no_grad()
    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B 1"]:
        """The largest surprise in the first denoising step (every token still masked)."""
        given = evidence.original_ids()
        with evidence.untuned():
            found = surprises(evidence.model, evidence.embed(), given, evidence)
        return found[:, None]

    def score(self, measured: Float[np.ndarray, "S 1"]) -> Float[np.ndarray, " S"]:
        """The surprise itself, in nats."""
        return measured[:, 0]


def surprises(
    model: DiffusionModel,
    prompts: Sequence[Embedded],
    given: Sequence[Int[Tensor, " _"]],
    evidence: Evidence,
) -> Float[np.ndarray, " B"]:
    """The largest -log p among each response's tokens in the first block."""
    how, found = (evidence.generation.length, evidence.rows, evidence.seed), []
    for at in range(0, len(prompts), AT_ONCE):
        part = slice(at, at + AT_ONCE)
        step = model.first_step(prompts[part], *how)
        rows = step.logits.shape[1] // step.starts
        for logits, ids in zip(step.logits, given[part], strict=True):
            found.append(surprise(logits.view(step.starts, rows, -1), ids))
    return np.array(found)


def surprise(logits: Float[Tensor, "N T V"], ids: Int[Tensor, " _"]) -> float:
    """The largest of -log p over tokens, mean over the N beginnings; nan for an empty response."""
    known = ids[: logits.shape[1]].to(logits.device)
    if not len(known):
        return float("nan")
    log_p = logits[:, : len(known)].double().log_softmax(-1)
    picked = log_p.gather(-1, known.expand(len(logits), -1)[..., None])[..., 0]
    return -float(picked.mean(0).min())
