"""The Hutchinson estimate of every visual token's saliency (Eqs. 5-8)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from disp_engine.errors import InvalidModelError
from disp_engine.interfaces import DiffusionModel
from disp_engine.records import Embedded, FirstStep
from disp_engine.saliency.path import faded, stations
from disp_engine.saliency.probes import PROBES, Estimator
from disp_engine.saliency.scores import Score
from disp_engine.saliency.sufficiency import sufficiency


@dataclass(frozen=True)
class SaliencySettings:
    """Probes m, kept logits K, rows of the first block, length T of the whole response.

    The authors' code has m = 6 Gaussian probes, K = 5 and one block of 32. For
    triggers that hide one another there are other scores: path spends the probes along a path (see
    `saliency.path`), sufficiency shows each token alone and needs none (`saliency.sufficiency`).
    """

    probes: int = 6
    top_logits: int = 5
    rows: int = 32
    length: int = 32
    seed: int = 0
    estimator: Estimator = "orthogonal"
    score: Score = "paper"


@dataclass(frozen=True)
class Saliency:
    """Scores [Lv] of one prompt's visual tokens in order, and their standard error [Lv].

    Along a path the error holds what differs between its points too; sufficiency has none, and its
    scores may be negative.
    """

    scores: Float[Tensor, " Lv"]
    standard_error: Float[Tensor, " Lv"]


def top_logit_fisher(
    logits: Float[Tensor, "B T V"], count: int
) -> tuple[Float[Tensor, "B T K"], Int[Tensor, "B T K"]]:
    """Softmax over the `count` largest logits of each row (float64), and their ids."""
    kept = logits.detach().topk(min(count, logits.shape[-1]), dim=-1)
    return kept.values.double().softmax(-1), kept.indices


def estimate_saliency(
    model: DiffusionModel, prompts: Sequence[Embedded], settings: SaliencySettings
) -> list[Saliency]:
    """Score the visual tokens of each prompt: by curvature, m activation-only backward passes.

    Source: Algorithm 1 lines 5-9 on the unmasked prompt followed by T masked positions, of which
    the first block's rows are scored (as the authors' code does). There is one forward pass for
    each point of the score: the paper's is one.
    """
    if settings.score == "sufficiency":
        numbers = (settings.length, settings.rows, settings.seed)
        found = [sufficiency(model, prompt, *numbers) for prompt in prompts]
        return [Saliency(_finite(scores), torch.zeros_like(scores)) for scores in found]
    generator = torch.Generator().manual_seed(settings.seed)
    delta: Tensor | None = None
    squares: list[Tensor] = []
    for point, probes in stations(settings.score, settings.probes):
        shown = faded(model, prompts, point)
        step = model.first_step(shown, settings.length, settings.rows, settings.seed)
        if delta is None:  # the perturbation e_mask - e_i is that of the prompt itself
            delta = (step.hidden - step.shown.detach()).double()
        for g in _gradients(step, probes, settings, generator):
            squares.append((g.double() * delta).sum(-1).square() / step.starts)
    return _per_prompt(torch.stack(squares), prompts)


def _gradients(
    step: FirstStep, probes: int, settings: SaliencySettings, generator: torch.Generator
) -> Iterator[Float[Tensor, "B L C"]]:
    """Gradients of <q, vec(L_gen)> in what is shown, for q ~ N(0, F) one after another."""
    p, kept = top_logit_fisher(step.logits, settings.top_logits)
    z = step.logits.gather(-1, kept)
    q = PROBES[settings.estimator](p, probes, generator).to(z.dtype)
    for j in range(probes):
        s = (q[j] * z).sum()  # Eq. 6, one sum for all prompts of the batch
        (g,) = torch.autograd.grad(s, step.shown, retain_graph=j < probes - 1)
        yield g


def _per_prompt(squares: Float[Tensor, "m B L"], prompts: Sequence[Embedded]) -> list[Saliency]:
    found = []
    for row, prompt in enumerate(prompts):
        visual = prompt.visual().to(squares.device)
        mine = 0.5 * squares[:, row, : len(visual)][:, visual]  # Eq. 8
        known = len(mine) > 1 and mine.shape[1] > 0
        spread = mine.std(0) if known else torch.full_like(mine[0], torch.nan)
        error = (spread / len(mine) ** 0.5).cpu()
        found.append(Saliency(_finite(mine.mean(0)).cpu(), error))
    return found


def _finite(scores: Float[Tensor, " Lv"]) -> Float[Tensor, " Lv"]:
    if not scores.isfinite().all():
        raise InvalidModelError("saliency is not finite: the model's numbers overflow.")
    return scores
