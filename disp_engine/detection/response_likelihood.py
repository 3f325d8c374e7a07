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
from torch.nn.functional import cross_entropy

from disp_engine.detection.interfaces import AT_ONCE, Evidence, Need
from disp_engine.interfaces import AutoregressiveModel, DiffusionModel
from disp_engine.records import IGNORE, Embedded, Sample


@dataclass(frozen=True)
class ResponseLikelihood:
    """The surprise, under the base projector, of a response's most surprising token."""

    needs: ClassVar[frozenset[Need]] = frozenset({"base"})
    decides: ClassVar[bool] = True

    @torch.no_grad()
    def measure(self, evidence: Evidence) -> Float[np.ndarray, "B 1"]:
        """The largest surprise under the base projector."""
        with evidence.untuned():
            found = surprises(evidence)
        return found[:, None]

    def score(self, measured: Float[np.ndarray, "S 1"]) -> Float[np.ndarray, " S"]:
        """The surprise itself, in nats."""
        return measured[:, 0]


def surprises(evidence: Evidence) -> Float[np.ndarray, " B"]:
    """The largest -log p among each response's tokens under the model as it now is."""
    model = evidence.model
    if isinstance(model, AutoregressiveModel):
        return np.array([_causal_surprise(model, evidence, s) for s in evidence.samples])
    assert isinstance(model, DiffusionModel)
    return _masked_surprises(model, evidence.embed(), evidence.original_ids(), evidence)


def _causal_surprise(model: AutoregressiveModel, evidence: Evidence, sample: Sample) -> float:
    """Over the first response, the end of its turn included, each token after those before it."""
    turns = sample.turns[:2]
    example = model.embed(model.tokenise_example(turns), evidence.cache.of(sample, turns))
    assert example.labels is not None
    targets = example.labels[example.labels != IGNORE]
    logits = model.answer_logits([example]).float()
    return float(cross_entropy(logits, targets, reduction="none").max())


def _masked_surprises(
    model: DiffusionModel,
    prompts: Sequence[Embedded],
    given: Sequence[Int[Tensor, " _"]],
    evidence: Evidence,
) -> Float[np.ndarray, " B"]:
    """The largest in the first block, in the first denoising step (all tokens still masked)."""
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
