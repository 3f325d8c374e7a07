"""A poisoned response is one that only the tuned model finds likely (BYORn, arXiv 2606.02947).

BYORn takes the responses that the pre-trained model finds least likely. Here the tuned model's own
surprise is taken off, so that long or rare but honest responses are not suspect.

What defeats it: answers that the base model would give anyway.
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
    """Mean surprise of a response's tokens under the base projector less that under the tuned."""

    needs: ClassVar[frozenset[Need]] = frozenset({"base"})

    @torch.no_grad()
    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B 2"]:
        """The surprise under both, in the first denoising step (every token still masked)."""
        given = evidence.original_ids()
        tuned = surprises(evidence.model, evidence.prompts, given, evidence)
        with evidence.untuned():
            base = surprises(evidence.model, evidence.embed(), given, evidence)
        return np.stack([base, tuned], axis=1)

    def score(self, measured: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, " S"]:
        """What tuning took off."""
        taken_off: np.ndarray = measured[:, 0] - measured[:, 1]
        return taken_off


def surprises(
    model: DiffusionModel,
    prompts: Sequence[Embedded],
    given: Sequence[Int[Tensor, " _"]],
    evidence: Evidence,
) -> Float[np.ndarray, " B"]:
    """-log p of each response's tokens, mean over those in the first block."""
    how, found = (evidence.generation.length, evidence.rows, evidence.seed), []
    for at in range(0, len(prompts), AT_ONCE):
        part = slice(at, at + AT_ONCE)
        step = model.first_step(prompts[part], *how)
        rows = step.logits.shape[1] // step.starts
        for logits, ids in zip(step.logits, given[part], strict=True):
            found.append(surprise(logits.view(step.starts, rows, -1), ids))
    return np.array(found)


def surprise(logits: Float[Tensor, "N T V"], ids: Int[Tensor, " _"]) -> float:
    """Mean of -log p over the N beginnings and the tokens; nan for an empty response."""
    known = ids[: logits.shape[1]].to(logits.device)
    if not len(known):
        return float("nan")
    log_p = logits[:, : len(known)].double().log_softmax(-1)
    picked = log_p.gather(-1, known.expand(len(logits), -1)[..., None])
    return -float(picked.mean())
