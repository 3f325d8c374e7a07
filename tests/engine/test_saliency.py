import pytest
import torch

from disp_engine.records import Embedded, Turn
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from disp_engine.saliency.exact import changes, exact_saliency
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
    torch.testing.assert_close(estimated.scores, found.saliency(q[:, 0]), rtol=1e-5, atol=1e-12)


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
