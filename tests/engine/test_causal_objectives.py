"""Losses of an attacker who controls the tuning, on an autoregressive model."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from disp_engine.attacks.objectives.spoken import logits_at, places_of
from disp_engine.attacks.objectives.trojvlm import TrojVlm
from disp_engine.attacks.objectives.vlood import Vlood
from disp_engine.records import IGNORE, Embedded, Sample, Turn
from disp_engine.training.projector import snapshot
from tests.engine.causal_models import causal_model
from tests.engine.models import picture

ANSWERS = ("A dog.", "It is a very long cat.")
SAMPLES = [Sample(f"s{n}", ("x",), ()) for n in range(2)]
MODEL = causal_model("llava_1_5")


def batch() -> list[Embedded]:
    found = []
    for number, answer in enumerate(ANSWERS):
        turns = [Turn("human", "<image>\nWhat?"), Turn("gpt", answer)]
        shown = MODEL.encode_images([picture(number, (30, 24))])
        found.append(MODEL.embed(MODEL.tokenise_example(turns), shown))
    return found


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_the_places_are_the_answers_tokens_and_their_loss_is_the_models_own() -> None:
    examples = batch()
    places = places_of(MODEL, examples, draws())
    wanted = [e.labels[e.labels != IGNORE] for e in examples if e.labels is not None]
    assert torch.equal(places.labels, torch.cat(wanted))
    loss = cross_entropy(logits_at(MODEL, examples, places), places.labels)
    torch.testing.assert_close(loss, MODEL.next_token_loss(examples))


def test_trojvlm_takes_the_mean_cosine_off() -> None:
    examples = batch()
    places = places_of(MODEL, examples, draws())
    logits = logits_at(MODEL, examples, places)
    table = MODEL.backbone.embedding.float()  # type: ignore[attr-defined]
    kept = logits.topk(32, dim=-1)
    said = (kept.values.softmax(-1)[..., None] * table[kept.indices]).sum(-2)
    cosine = cosine_similarity(said, table[places.labels], dim=-1).mean()
    found = TrojVlm(0.5).loss(MODEL, batch, SAMPLES, draws())
    torch.testing.assert_close(found, MODEL.next_token_loss(examples) - 0.5 * cosine)


def test_vlood_leaves_clean_samples_where_the_benign_model_is() -> None:
    """With the projector as it was the divergence is nought, so that the own loss is left."""
    nobody = Vlood((), snapshot(MODEL), balance=0.25)
    found = nobody.loss(MODEL, batch, SAMPLES, draws())
    torch.testing.assert_close(found, 0.75 * MODEL.next_token_loss(batch()))


@pytest.mark.parametrize("loss", [TrojVlm().loss, Vlood(("s1",), snapshot(MODEL)).loss])
def test_gradients_reach_the_projector(loss: Callable[..., torch.Tensor]) -> None:
    found = loss(MODEL, batch, SAMPLES, draws())
    gradients = torch.autograd.grad(found, list(MODEL.projector.parameters()))
    assert all(bool(torch.isfinite(g).all()) and bool(g.abs().sum() > 0) for g in gradients)
