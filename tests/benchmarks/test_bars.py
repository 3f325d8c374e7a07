"""The bars' own judgement: outputs are compared, and what is wrong or slow is found.

No time is asserted; where one matters, the clock is a made-up one.
"""

import argparse
import importlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import bench, gpu, memory
from benchmarks.bars import (
    memory_of_positions,
    memory_of_samples,
    memory_of_vocabulary,
    saliency,
    tuning,
    vision_cache,
)
from benchmarks.bench import CPU, TOKENIZER, Bench, Comparison
from benchmarks.lines import Line, Report
from benchmarks.modes import in_prefix_mode
from benchmarks.operations import back, milliseconds
from benchmarks.reference import training as eq_2
from benchmarks.reference.generation import _quotas
from benchmarks.reference.saliency import _root_of_fisher
from benchmarks.roofline import Roofline
from benchmarks.run import BARS, run
from benchmarks.shapes import SHAPES
from benchmarks.subject import Sizes, Subject
from benchmarks.timing import Arm, Timing, interleaved
from disp_engine.diffusion.attention import Attention
from disp_engine.records import IGNORE

STEPS = 8


def subject_of(name: str) -> Subject:
    shape = SHAPES[name].of(1, toy=True)
    return Subject.of(shape.build(TOKENIZER, CPU, torch.float32), 2, Sizes(text=8, answer=8))


@pytest.fixture(scope="module")
def llada_v() -> Subject:
    return subject_of("llada_v")


@pytest.fixture(scope="module")
def lavida() -> Subject:
    return subject_of("lavida")


@pytest.fixture
def wrong_logits(llada_v: Subject, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """An engine that confuses the rows it is asked for."""
    model = llada_v.pair.model
    right = model.logits

    def rows_before(embeddings: Tensor, rows: Tensor, attended: Any = None) -> Tensor:
        return right(embeddings, rows - 1, attended)

    monkeypatch.setattr(model, "logits", rows_before)
    return llada_v


# What the engine gives is what the literal loops give.


def test_ids_scores_and_gradients_of_the_engine_are_those_of_the_literal_loops(llada_v):
    lines = gpu.identity(llada_v)
    assert [line.bar for line in lines] == [
        "identity: token ids",
        "identity: saliency",
        "identity: gradients",
    ]
    assert all(line.holds for line in lines), lines
    assert len(set(llada_v.generate(0, STEPS).tolist())) > 4  # the answers tell positions apart


def test_lavida_says_the_same_ids_under_both_masks(lavida):
    model = lavida.pair.model
    full = lavida.generate(0, STEPS)
    assert lavida.denoise([0], STEPS)[0].tolist() == full.tolist()
    with in_prefix_mode(model):
        [given] = lavida.denoise([0], STEPS)
    assert given.tolist() == lavida.generate(0, STEPS, prefix=True).tolist()
    assert model.attention is Attention.FULL


def test_an_engine_that_reads_other_rows_gives_other_ids_and_scores(wrong_logits):
    told, given = [wrong_logits.generate(0, STEPS)], wrong_logits.denoise([0], STEPS)
    assert not bench.same_ids("3 ids", told, given).holds
    assert not bench.agreement("2 scores", saliency.error(wrong_logits)).holds


def test_an_engine_that_weights_its_loss_otherwise_has_another_gradient(llada_v, monkeypatch):
    assert bench.agreement("5 gradients", tuning.error(llada_v)).holds
    model = llada_v.pair.model
    right = model.noised_loss
    monkeypatch.setattr(model, "noised_loss", lambda *given: right(*given) * 1.001)
    assert tuning.error(llada_v) == pytest.approx(1e-3, rel=0.1)
    assert not bench.agreement("5 gradients", tuning.error(llada_v)).holds


def test_unfrozen_weights_get_gradients_and_are_frozen_again(llada_v):
    reference = llada_v.pair.reference
    frozen = llada_v.literal_scores(0)
    with reference.unfrozen():
        assert reference.tensors["lm_head.weight"].requires_grad
        assert torch.equal(llada_v.literal_scores(0), frozen)
    assert not any(t.requires_grad or t.grad is not None for t in reference.tensors.values())


# The reference against what can be worked out by hand.


def test_the_root_of_the_fisher_information_squares_to_it():
    p = torch.tensor([[0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
    root = _root_of_fisher(p)
    expected = torch.tensor([[[0.25, -0.25], [-0.25, 0.25]], [[0.16, -0.16], [-0.16, 0.16]]])
    torch.testing.assert_close(root @ root.transpose(1, 2), expected.double())


def test_masks_are_shared_over_the_steps_and_the_first_take_the_rest():
    assert _quotas(32, 32) == [1] * 32
    assert _quotas(5, 2) == [3, 2]


def test_equation_2_of_a_model_that_knows_nothing_is_log_v_over_p_for_each_mask():
    class Uniform:
        def logits(self, embeddings: Tensor) -> Tensor:
            return torch.zeros(1, embeddings.shape[1], 11)

    labels = torch.tensor([IGNORE, 1, 2, 3, 4])
    seed = 2
    draws = torch.Generator().manual_seed(seed)
    p = 0.999 * torch.rand(1, generator=draws).item() + 0.001
    masked = int((torch.rand((1, 5), generator=draws)[0, 1:] < p).sum())
    assert 0 < masked < 4
    generator = torch.Generator().manual_seed(seed)
    loss = eq_2.loss(Uniform(), torch.zeros(5, 3), labels, torch.ones(3), generator)
    assert float(loss) == pytest.approx(masked * math.log(11) / p / 4)


def test_the_operations_of_llada_v_are_those_of_its_shapes():
    shape = SHAPES["llada_v"]
    blocks = 32 * (4 * 4096**2 + 3 * 4096 * 12288)
    assert gpu._weights(shape.config) == blocks == 6_979_321_856
    assert gpu._head(shape.config, 32) == 2 * 32 * 126_464 * 4096


# What is slow is found.


class Clock:
    """Time that passes only when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float) -> Callable[[int], None]:
        def act(_: int) -> None:
            self.now += seconds

        return act


def test_arms_take_turns_and_the_warm_up_is_not_counted():
    seen: list[str] = []
    arms = {name: Arm(lambda n, name=name: seen.append(f"{name}{n}")) for name in "AB"}
    found = interleaved(arms, CPU, rounds=3)
    assert seen == ["A0", "B0", "A0", "B0", "A1", "B1", "A2", "B2"]
    assert all(len(timing.seconds) == 3 for timing in found.values())


def test_a_comparison_that_has_no_time_left_ends_after_the_least_rounds():
    found = interleaved({"A": Arm(lambda _: None)}, CPU, rounds=9, least=2, left=lambda: -1)
    assert len(found["A"].seconds) == 2


def test_times_of_several_samples_are_those_of_one():
    clock = Clock()
    found = interleaved({"A": Arm(clock.takes(6.0), samples=4)}, CPU, rounds=3, clock=clock)
    assert found["A"].median == found["A"].least == 1.5


def comparison_of(**seconds: float) -> Comparison:
    return Comparison({name: Timing([took], [None], None, 1) for name, took in seconds.items()}, 0)


def test_a_slow_engine_breaks_a_bar_and_a_quick_one_keeps_it():
    for ours, kept in ((1.0, True), (2.0, False)):
        found = comparison_of(ours=ours, literal=2.4)
        value = found.ratio("literal", "ours")
        line = found.line("2 literal over ours", value, saliency.OVER_LITERAL, at_most=False)
        assert line.holds is kept and line.value == pytest.approx(2.4 / ours)
    for tuned, kept in ((1.03, True), (1.04, False)):
        assert vision_cache.overhead(comparison_of(tuning=tuned, bare=1.0)).holds is kept


def drifting(monkeypatch: pytest.MonkeyPatch, *speeds: float) -> Iterator[float]:
    told = iter(speeds)
    monkeypatch.setattr(bench, "_reference", lambda: next(told))
    return told


def test_a_machine_that_drifts_is_measured_again_and_the_steadiest_attempt_counts(monkeypatch):
    left = drifting(monkeypatch, 1.0, 2.0, 1.0, 1.2, 1.0, 0.5)
    assert Bench(1).compare({"A": lambda _: None}).drift == pytest.approx(0.2)
    assert list(left) == []
    left = drifting(monkeypatch, 1.0, 2.0, 1.0, 1.05, 7.0)
    assert Bench(1).compare({"A": lambda _: None}).drift == pytest.approx(0.05)
    assert list(left) == [7.0]


def test_the_roofline_has_each_product_once_and_the_last_layer_at_the_wanted_rows(llada_v):
    floor = Roofline.of(llada_v)
    assert len(floor.products) == 7 * 1 + 1
    rows = [len(x) for x, _, _ in floor.products]
    n = llada_v.positions
    assert rows == [32, n, n, 32, 32, 32, 32, 32]
    floor.forward()
    floor.backward()


# Memory.


def test_what_is_taken_and_given_back_shows_in_the_peak():
    size = 64 << 20
    grown = memory._grown(lambda: torch.ones(size, dtype=torch.uint8))
    assert grown == pytest.approx(size, rel=0.2)


def test_memory_bars_judge_slopes():
    wide = memory_of_vocabulary.LARGE - memory_of_vocabulary.SMALL
    assert memory_of_vocabulary.line(1000, 1000 + 204 * wide).holds
    assert not memory_of_vocabulary.line(1000, 1000 + 206 * wide).holds
    kept = memory_of_positions.KEPT
    assert kept == 4 * 4 * 12 * 128  # 24.6 KB
    peak = 512 * kept
    assert all(line.holds for line in memory_of_positions.lines(peak, 4 * peak))
    growth, slope = memory_of_positions.lines(peak, 16 * peak)
    assert not growth.holds and not slope.holds
    more = memory_of_samples.MANY - memory_of_samples.FEW
    assert memory_of_samples.line(0, 12 * 1024 * more).holds
    assert not memory_of_samples.line(0, 13 * 1024 * more).holds


# The vision cache.


def test_a_second_look_at_a_picture_breaks_the_bar():
    once, never = vision_cache.Count(5, 4), vision_cache.Count()
    assert vision_cache.counts(once, 5, never).holds
    assert not vision_cache.counts(once, 4, never).holds  # the same tile went twice
    assert not vision_cache.counts(once, 5, vision_cache.Count(tiles=1)).holds
    assert not vision_cache.counts(once, 5, vision_cache.Count(pictures=1)).holds


def test_tiles_are_counted_as_long_as_one_counts(llada_v):
    tower = llada_v.pair.model.tower
    pixels = torch.zeros(3, 3, 56, 56)
    with vision_cache.counted(tower) as count:
        tower(pixels)
    tower(pixels)
    assert count == vision_cache.Count(tiles=3)


# Lines.


def test_a_bar_that_fails_is_a_line_that_does_not_hold_and_the_others_follow(tmp_path):
    def broken() -> Line:
        raise RuntimeError("no such thing")

    file = tmp_path / "lines.json"
    report = Report(file)
    report.attempt("A", 0, broken)
    assert json.loads(file.read_text())[0]["detail"]["failed"] == "RuntimeError: no such thing"
    report.attempt("B", 0, lambda: Line("B", 2.0, 1.0, True))
    told = json.loads(file.read_text())
    assert [(line["bar"], line["value"], line["holds"]) for line in told] == [
        ("A", None, False),
        ("B", 2.0, True),
    ]
    assert set(told[1]) == {"bar", "value", "target", "holds", "detail"}


def test_what_no_longer_fits_the_budget_is_not_begun():
    report = Report(None, budget_s=10)
    report.attempt("A", 60, lambda: pytest.fail("begun"))
    [line] = report.lines
    assert not line.holds and "about 60 are needed" in line.detail["skipped"]


def test_every_bar_can_be_measured():
    assert all(callable(importlib.import_module(name).measure) for name in BARS.values())


def test_one_broken_promise_breaks_the_run(monkeypatch):
    for kept in (True, False):
        monkeypatch.setattr(vision_cache, "measure", lambda _, kept=kept: [Line("6", 1, 1, kept)])
        assert run(["vision_cache"], Bench(), Report(None)) is kept


# The GPU's bars.


def test_fewer_samples_are_taken_where_the_memory_does_not_do():
    def act(count: int) -> None:
        if count > 2:
            raise torch.OutOfMemoryError("out of memory")

    assert gpu.largest(act, (4, 2, 1)) == 2
    with pytest.raises(RuntimeError, match="not even 3"):
        gpu.largest(act, (4, 3))


def test_the_whole_job_is_added_up_from_its_stages(llada_v):
    found = gpu.Bench(replace(llada_v, encode_s=0.06), Report(None), ceilings_of(1.0), rounds=1)
    with pytest.raises(RuntimeError, match="generation, saliency, tuning"):
        found.job("H-e", 85)
    found.costs = {
        "tuning": gpu.Costs(0.2, 0.06),  # 22 epochs of 1000
        "saliency": gpu.Costs(1.2, 0.3),
        "generation": gpu.Costs(2.0, 1.2),  # 1000 and twice 400
    }
    line = found.job("H-e", 85)
    assert line.value == pytest.approx(22 + 5 + 36 + 1) and line.holds
    assert line.detail["literal_minutes"] == pytest.approx(73.3 + 20 + 60, abs=0.1)


def ceilings_of(flops: float) -> gpu.Ceilings:
    return gpu.Ceilings(flops, bytes_s=1.0)


def test_ceilings_drift_by_what_has_changed_most():
    assert ceilings_of(10.0).drift(ceilings_of(9.0)) == pytest.approx(0.1)
    assert gpu.Ceilings(1.0, 4.0).drift(gpu.Ceilings(1.0, 5.0)) == pytest.approx(0.25)


def test_a_step_on_the_gpu_masks_something():
    for number in range(6):
        generator = torch.Generator().manual_seed(gpu.seed_of(number))
        assert 0.4 < float(torch.rand(1, generator=generator)) < 0.7


def test_the_command_measures_a_family_from_end_to_end(tmp_path):
    asked = {"toy": True, "layers": 1, "rounds": 1, "budget": math.inf, "tokenizer": TOKENIZER}
    session = gpu.Session(argparse.Namespace(**asked, json=tmp_path / "gpu.json"))
    session._family("llada_v", lambda b: session.report.add(b.tuning("H-d", 1.5, 0.09)))
    built, line = json.loads((tmp_path / "gpu.json").read_text())
    assert built["holds"] and built["detail"]["positions"] == 180
    assert line["bar"] == "H-d" and line["detail"]["gradient_relative_error"] < 1e-5
    assert line["detail"]["ours in batch"]["samples"] == 4


def test_a_profile_tells_the_operations_of_a_way_back(llada_v: Subject) -> None:
    spent = milliseconds(back(llada_v))
    assert {name for name in spent if "attention" in name and "backward" in name}
    assert spent["aten::mm"] > 0
    assert spent["others"] >= 0
