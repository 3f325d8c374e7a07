"""How many samples fit at once, by gauges whose numbers are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from disp_engine.context import SilentContext
from disp_engine.defences.disp import DiSP
from disp_engine.metrics.evaluator import EvaluationSets
from disp_engine.metrics.success import ContainsAny
from disp_engine.training.examples import FeatureCache, Prepared, prepare
from disp_engine.training.planning import HostGauge, planned_micro_batch
from disp_engine.training.ranks import Ranks
from disp_engine.training.settings import FineTuning
from tests.engine.models import FIXTURE, random_llada_v
from tests.engine.test_disp import QUICK, Listener, dataset, record, run


class Scripted:
    """Counts what is measured, and says that each step takes as much as it is told."""

    def __init__(self, free: int, needs: list[int]) -> None:
        self._free, self._needs = free, iter(needs)

    def free(self) -> int:
        return self._free

    def held(self) -> int:
        return 200

    def taken_by(self, act: Callable[[], object]) -> int:
        act()
        return next(self._needs)


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[FeatureCache, Prepared]:
    model = random_llada_v()
    cache = FeatureCache(model, tmp_path, SilentContext())
    data = dataset(tmp_path / "data", [record("a"), record("b", turns=2)])
    return cache, prepare(data, model, cache)


@pytest.mark.parametrize(
    ("free", "needs", "most", "planned"),
    [
        (1000, [100, 50], 32, 8),  # 0.8 x 1000 / 100
        (1000, [50, 100], 32, 8),
        (1000, [130, 50], 32, 4),  # 6 would fit
        (1000, [1, 1], 32, 32),
        (1000, [1, 1], 20, 20),
        (10, [100, 50], 32, 1),
    ],
)
def test_the_larger_need_decides(
    prepared: tuple[FeatureCache, Prepared], free: int, needs: list[int], most: int, planned: int
) -> None:
    cache, found = prepared
    gauge = Scripted(free, needs)
    model = random_llada_v()
    assert planned_micro_batch(model, found.usable, cache, 4, most, gauge) == planned
    assert all(value.grad is None for value in model.projector.parameters())


@pytest.mark.parametrize(("free", "planned"), [(1000, 4), (200, 1), (100, 1)])
def test_a_model_that_is_loaded_twice_leaves_less(
    prepared: tuple[FeatureCache, Prepared], free: int, planned: int
) -> None:
    cache, found = prepared
    gauge = Scripted(free, [100, 100])
    model, samples = random_llada_v(), found.usable
    assert planned_micro_batch(model, samples, cache, 4, 32, gauge, twice=True) == planned


@pytest.mark.parametrize(
    ("processes", "micro_batch", "most"), [(None, 32, 32), (4, 32, 8), (3, 32, 11), (4, 2, 2)]
)
def test_processes_that_tune_together_have_something_to_share(
    tmp_path: Path, processes: int | None, micro_batch: int, most: int
) -> None:
    settings = replace(QUICK, batch_size=32, micro_batch=micro_batch, fit_memory=True)
    ranks = None if processes is None else Ranks(processes, FIXTURE, {}, tmp_path)
    data = dataset(tmp_path / "data", [record("a")])
    sets = EvaluationSets(triggered=data, clean=data, success=ContainsAny(("sorry",)))
    context = SilentContext()
    defence = DiSP(random_llada_v(), data, sets, settings, 3, tmp_path, context, ranks=ranks)
    assert defence._most_at_once() == most
    if ranks is not None:
        tuning = FineTuning(batch_size=32, micro_batch=most)
        assert ranks.wanted(tuning) >= ranks.count


def test_what_the_host_keeps_for_the_way_back_is_counted() -> None:
    x = torch.randn(256, 256, requires_grad=True)
    graph = []
    taken = HostGauge().taken_by(lambda: graph.append((x * x).exp().sin()))
    assert taken == 2 * 256 * 256 * 4  # x, and what exp gives and sin takes, which is one tensor
    assert HostGauge().free() > 0


def test_a_run_that_fits_the_memory_says_how_many_and_goes_on_with_them(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", [record("a"), record("b"), record("c")])
    listener = Listener()
    fitting = replace(QUICK, fit_memory=True)
    first, _ = run(data, tmp_path, fitting, listener)
    assert any("samples at once fit" in line for line in listener.said)
    plain, _ = run(data, tmp_path / "plain")
    assert first.hashes == plain.hashes  # two small samples fit, as many as at most
    again = Listener()
    run(data, tmp_path, fitting, again)
    assert again.reused["fine_tune"] and again.reused["saliency"]
