"""What every detector must promise, on a random model and a handful of samples."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from disp_engine import registry
from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset
from disp_engine.detection.examination import askable
from disp_engine.detection.interfaces import Detector, Evidence
from disp_engine.interfaces import Generation
from disp_engine.metrics.auroc import auroc
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from disp_engine.training.examples import FeatureCache, prepare
from disp_engine.training.projector import projector_sha256, snapshot
from tests.engine.models import random_llada_v
from tests.engine.test_disp import dataset, record

GENERATION = Generation(length=4, block_length=4)
RNG = np.random.default_rng(0)
POISONED = np.arange(200) < 40


def apart(columns: int, low: float, high: float, spread: float) -> np.ndarray:
    """40 samples round `high`, 160 round `low`."""
    centres = np.where(POISONED, high, low)[:, None]
    return RNG.normal(np.repeat(centres, columns, axis=1), spread)


PLANTED = {
    "response_disagreement": apart(1, 0.1, 0.9, 0.02),
    "first_step_kl": np.exp(apart(1, -3, 1, 0.5)),
    "saliency_concentration": apart(1, 0.1, 0.7, 0.05),
    "attention_entropy": apart(3, 0.9, 0.4, 0.03),
    "attention_share": apart(4, 0.5, 0.1, 0.03),
    "response_likelihood": apart(1, 2, 12, 0.3),
}
"""Measurements of a dataset in which each detector's own sign of poison is there."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset(tmp_path_factory.mktemp("data"), [record(f"s{i}") for i in range(5)])


@pytest.fixture(scope="module")
def evidence(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    model = random_llada_v()
    cache = FeatureCache(model, tmp_path_factory.mktemp("cache"), SilentContext())
    samples = prepare(data, model, cache).usable
    found = Evidence(model, cache, samples, GENERATION, 0, 0.3, base=shifted(model.projector))
    settings = SaliencySettings(probes=2, rows=4, length=4)
    saliency = estimate_saliency(model, found.prompts, settings)
    rewritten = ["Old answer 0.", "Something else.", None, "Old answer", "New."]
    return part(found, range(5), saliency=saliency, rewritten=rewritten)


def shifted(projector: nn.Module) -> dict[str, object]:
    """Base weights that differ from the tuned ones."""
    return {name: 1.5 * p.detach() for name, p in projector.named_parameters()}


def part(whole: Evidence, chosen: range, **given: object) -> Evidence:
    """The evidence of some of the samples."""
    from dataclasses import replace

    lists = {"samples": whole.samples, "saliency": whole.saliency, "rewritten": whole.rewritten}
    lists |= given  # type: ignore[arg-type]
    return replace(whole, **{k: v and [v[i] for i in chosen] for k, v in lists.items()})  # type: ignore[index,arg-type]


@pytest.fixture(params=registry.DETECTORS, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def detector(name: str) -> Detector:
    return registry.detector(name)


def test_it_measures_every_sample_and_leaves_the_model_alone(
    detector: Detector, evidence: Evidence
) -> None:
    before = projector_sha256(evidence.model.projector)
    measured = detector.measure(evidence)
    assert len(measured) == len(evidence.samples), "law: one row for each sample"
    assert projector_sha256(evidence.model.projector) == before, "law: the model is as it was"
    assert np.isfinite(measured).any(), "law: something is measured"
    hooks = [m for m in random_llada_v().language.modules() if m._forward_hooks]
    assert not hooks, "law: what is hooked is undone"


def test_a_samples_measure_does_not_depend_on_its_neighbours(
    detector: Detector, evidence: Evidence
) -> None:
    together = detector.measure(evidence)
    alone = np.concatenate([detector.measure(part(evidence, range(i, i + 1))) for i in range(5)])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-5)


def test_its_own_sign_of_poison_scores_high(detector: Detector, name: str) -> None:
    scores = detector.score(PLANTED[name])
    found = auroc(scores, POISONED)
    assert found is not None and found > 0.99, "law: higher is more suspicious"


def test_samples_that_are_all_alike_get_one_score(detector: Detector, name: str) -> None:
    alike = np.tile(PLANTED[name][:1], (50, 1))
    assert np.ptp(detector.score(alike)) < 1e-9, "law: no difference, no suspicion"


def test_a_run_asks_only_detectors_whose_needs_are_met(
    detector: Detector, name: str, evidence: Evidence, tmp_path: Path
) -> None:
    bare = Evidence(evidence.model, evidence.cache, evidence.samples, GENERATION, 0)
    unmet = detector.needs & {"saliency", "rewritten", "base"}
    assert (name in askable(bare)) == (not unmet), "law: needs are declared"
    assert name in askable(evidence)


def test_the_untuned_model_is_tuned_again_even_when_something_fails(evidence: Evidence) -> None:
    before = snapshot(evidence.model)
    with pytest.raises(ZeroDivisionError), evidence.untuned():
        name, weights = next(iter(snapshot(evidence.model).items()))
        assert (weights != before[name]).any()
        _ = 1 / 0
    assert projector_sha256(evidence.model.projector)
    for name, weights in snapshot(evidence.model).items():
        assert (weights == before[name]).all()


def test_pages_say_what_it_means(name: str) -> None:
    from api.web.detectors import MEANINGS

    assert name in MEANINGS, "law: a reason is a sentence"
