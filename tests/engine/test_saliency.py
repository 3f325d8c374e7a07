from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from disp_engine.models.llada_v import LladaV
from disp_engine.records import Embedded, FirstStep, Turn
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from disp_engine.saliency.exact import changes, exact_saliency
from disp_engine.saliency.masking import hide
from disp_engine.saliency.path import faded, stations
from disp_engine.saliency.probes import PROBES, Estimator
from tests.engine.models import picture, random_llada_v

SETTINGS = SaliencySettings(probes=6, top_logits=5, rows=4, length=8)


def prompt(seed: int, question: str) -> Embedded:
    model = random_llada_v()
    features = model.encode_images([picture(seed)])
    tokens = model.tokenise_prompt([Turn("human", f"<image>\n{question}")])
    with torch.no_grad():
        return model.embed(tokens, features)


def test_the_estimate_converges_to_the_exact_quadratic_form() -> None:
    shown = prompt(0, "What is it?")
    exact = exact_saliency(random_llada_v(), shown, SETTINGS)
    many = SaliencySettings(probes=1500, top_logits=5, rows=4, length=8)
    (found,) = estimate_saliency(random_llada_v(), [shown], many)
    error = (found.scores - exact).abs()
    assert (error < 5 * found.standard_error).all()
    spread = (2 / many.probes) ** 0.5  # of a Gaussian quadratic form, at most, as a share of it
    assert float(error.sum() / exact.sum()) < 4 * spread


@pytest.mark.parametrize("estimator", PROBES)
def test_backward_passes_give_what_the_exact_changes_give(estimator: Estimator) -> None:
    model, shown = random_llada_v(), prompt(0, "What is it?")
    settings = SaliencySettings(probes=3, top_logits=5, rows=4, length=8, estimator=estimator)
    found = changes(model, shown, settings)
    q = PROBES[estimator](found.p[None], 3, torch.Generator().manual_seed(settings.seed))
    (estimated,) = estimate_saliency(model, [shown], settings)
    told = found.saliency(q[:, 0])
    assert (estimated.scores - told).norm() <= 1e-5 * told.norm()


def test_the_exact_form_is_the_curvature_of_the_divergence() -> None:
    """Eq. 4: moving one token a small way along its perturbation changes KL by s * step^2."""
    model, shown = random_llada_v(), prompt(1, "Why?")
    full = SaliencySettings(probes=1, top_logits=10**6, rows=2, length=2)
    exact = exact_saliency(model, shown, full)
    token, step = int(exact.argmax()), 1e-2
    before = distribution(shown, 2)
    rows = shown.visual().nonzero()[:, 0]
    moved = shown.embeddings.clone()
    moved[rows[token]] += step * (model.mask_embedding - moved[rows[token]])
    after = distribution(Embedded(moved, shown.spans), 2)
    divergence = float((before.exp() * (before - after)).sum())
    assert divergence == pytest.approx(float(exact[token]) * step**2, rel=0.05)


def distribution(shown: Embedded, rows: int) -> torch.Tensor:
    model = random_llada_v()
    length = len(shown.embeddings)
    masks = model.mask_embedding.expand(rows, -1)
    embeddings = torch.cat([shown.embeddings, masks])[None]
    with torch.no_grad():
        logits = model.logits(embeddings, torch.arange(length, length + rows)[None])
    return logits[0].double().log_softmax(-1)


def test_a_prompt_scores_the_same_beside_a_longer_one() -> None:
    short, long = prompt(0, "What?"), prompt(2, "What is shown in this picture, please?")
    alone = estimate_saliency(random_llada_v(), [short], SETTINGS)[0]
    beside = estimate_saliency(random_llada_v(), [short, long], SETTINGS)[0]
    assert torch.allclose(alone.scores, beside.scores, rtol=1e-4, atol=1e-9)


def test_the_standard_error_shrinks_with_the_number_of_probes() -> None:
    shown = prompt(0, "What is it?")
    few, many = (
        estimate_saliency(random_llada_v(), [shown], SaliencySettings(m, 5, 4, 8))[0]
        for m in (50, 800)
    )
    ratio = float(few.standard_error.mean() / many.standard_error.mean())
    assert 2.5 < ratio < 6  # sqrt(800 / 50) = 4


def test_the_probes_of_a_path_are_spread_evenly_and_begin_at_the_prompt() -> None:
    assert stations("paper", 6) == [(0.0, 6)]
    assert stations("path", 4) == [(0.0, 1), (0.25, 1), (0.5, 1), (0.75, 1)]


def test_a_score_along_the_path_is_the_mean_of_the_exact_forms_there() -> None:
    """With one row and two logits F has one direction, whose sign squares to 1: no variance."""
    shown, settings = prompt(0, "What is it?"), SaliencySettings(4, 2, rows=1, length=8)
    model = random_llada_v()
    (found,) = estimate_saliency(model, [shown], replace(settings, score="path"))
    expected = torch.zeros_like(found.scores)
    for point in (0.0, 0.25, 0.5, 0.75):
        (there,) = faded(model, [shown], point)
        # the exact form's direction is what is left of the way, e_mask - e_i is all of it
        expected += exact_saliency(model, there, settings) / (1 - point) ** 2 / 4
    assert torch.allclose(found.scores, expected, rtol=1e-3, atol=float(expected.max()) * 1e-4)


class EitherSuffices(LladaV):
    """One row of two logits: 4 if token 0 or token 1 is shown, and a tenth of each other token."""

    device = torch.device("cpu")  # type: ignore[assignment]

    def __init__(self) -> None:
        self.projector, self.revision = torch.nn.Identity(), ""

    def hide(self, prompt: Embedded, chosen: Tensor) -> Embedded:
        return hide(prompt, chosen, torch.zeros(1))

    def first_step(self, prompts: Sequence[Embedded], *numbers: Any) -> FirstStep:
        shown = torch.stack([p.embeddings for p in prompts]).requires_grad_()
        either = 4 * (shown[:, 0] + shown[:, 1]).clamp(max=1)
        first = either + shown[:, 2:].sum(1) / 10
        logits = torch.stack([first, torch.zeros_like(first)], dim=-1)
        return FirstStep(logits, shown, torch.zeros_like(shown))


def test_tokens_that_hide_one_another_are_found_along_the_path_and_alone() -> None:
    model = EitherSuffices()
    shown = Embedded(torch.ones(6, 1), spans=((0, 6),))
    settings = SaliencySettings(probes=5, top_logits=2, rows=1, length=1)
    (paper,) = estimate_saliency(model, [shown], settings)
    (path,) = estimate_saliency(model, [shown], replace(settings, score="path"))
    assert paper.scores[:2].tolist() == [0, 0] and (paper.scores[2:] > 0).all()
    assert path.scores[:2].min() > 100 * path.scores[2:].max()
    (alone,) = estimate_saliency(model, [shown], replace(settings, score="sufficiency"))
    log_p = torch.tensor([4.4, 0, 4, 0.1], dtype=torch.float64)[:, None] * torch.tensor([1.0, 0])
    log_p = log_p.log_softmax(-1)
    gains = (log_p[0].exp() * (log_p[2:] - log_p[1])).sum(-1)
    torch.testing.assert_close(alone.scores.double()[[0, 1, 2]], gains[[0, 0, 1]])
    assert alone.standard_error.tolist() == [0] * 6
    # beyond the middle, at 0.6 and 0.8, the logit is (4 * 2 + 0.4) * (1 - a) and not yet clamped
    p = torch.sigmoid(8.4 * torch.tensor([0.4, 0.2], dtype=torch.float64))
    expected = float((0.5 * 16 * p * (1 - p)).sum()) / 5
    assert float(path.scores[0]) == pytest.approx(expected, rel=1e-5)
