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
from disp_engine.interfaces import AutoregressiveModel, DiffusionModel
from disp_engine.records import Embedded, Sample


@dataclass(frozen=True)
class ResponseLikelihood:
    """Mean surprise of a response's tokens under the base projector less that under the tuned."""

    needs: ClassVar[frozenset[Need]] = frozenset({"base"})

    @torch.no_grad()
    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B 2"]:
        """The surprise under both projectors."""
        tuned = surprises(evidence)
        with evidence.untuned():
            base = surprises(evidence)
        return np.stack([base, tuned], axis=1)

    def score(self, measured: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, " S"]:
        """What tuning took off."""
        taken_off: np.ndarray = measured[:, 0] - measured[:, 1]
        return taken_off


def surprises(evidence: Evidence) -> Float[np.ndarray, " B"]:
    """-log p of each response's tokens under the model as it now is, mean over tokens."""
    model = evidence.model
    if isinstance(model, AutoregressiveModel):
        return np.array([_causal_surprise(model, evidence, s) for s in evidence.samples])
    assert isinstance(model, DiffusionModel)
    return _masked_surprises(model, evidence.embed(), evidence.original_ids(), evidence)


def _causal_surprise(model: AutoregressiveModel, evidence: Evidence, sample: Sample) -> float:
    """Over the first response, the end of its turn included, each token after those before it."""
    turns = sample.turns[:2]
    example = model.embed(model.tokenise_example(turns), evidence.cache.of(sample, turns))
    return float(model.next_token_loss([example]))


def _masked_surprises(
    model: DiffusionModel,
    prompts: Sequence[Embedded],
    given: Sequence[Int[Tensor, " _"]],
    evidence: Evidence,
) -> Float[np.ndarray, " B"]:
    """Over the tokens in the first block, in the first denoising step (all still masked)."""
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
