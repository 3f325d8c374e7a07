"""The detectors' measures and the verdict by values computed by hand."""

import math

import numpy as np
import pytest
import torch

from disp_engine.detection.attention_share import shares
from disp_engine.detection.excess import SCALE, body, excess, scale_of
from disp_engine.detection.first_step_kl import divergence
from disp_engine.detection.response_disagreement import disagreement
from disp_engine.detection.response_likelihood import surprise
from disp_engine.detection.saliency_concentration import concentration
from disp_engine.detection.shared_look import WIDTH, look, predicted
from disp_engine.detection.verdict import ALPHA, judge
from disp_engine.metrics.auroc import auroc
from disp_engine.records import Embedded, VisualFeatures
from disp_engine.saliency.estimator import Saliency


def ids(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.long)


def test_disagreement_counts_what_stays_in_order() -> None:
    assert disagreement(ids(1, 2, 3), ids(1, 2, 3)) == 0
    assert disagreement(ids(1, 2), ids(3, 4)) == 1
    assert disagreement(ids(1, 2, 3), ids(2, 3, 4)) == pytest.approx(1 - 4 / 6)
    assert disagreement(ids(1, 2), ids(2, 1)) == 0.5
    assert disagreement(ids(), ids()) == 0


def test_divergence_is_that_of_the_softmaxes() -> None:
    even, uneven = torch.zeros(1, 2), torch.log(torch.tensor([[0.75, 0.25]]))
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert divergence(even, uneven) == pytest.approx(expected)
    assert divergence(uneven, uneven) == 0


def saliency(*scores: float) -> Saliency:
    return Saliency(torch.tensor(scores, dtype=torch.float32), torch.zeros(len(scores)))


def test_concentration_is_one_where_one_token_holds_everything() -> None:
    assert concentration(saliency(0.2, 0.2, 0.2, 0.2)) == pytest.approx(0)
    assert concentration(saliency(3, 0, 0, 0)) == pytest.approx(1)
    assert concentration(saliency(1, 1, 0, 0)) == pytest.approx(0.5)
    assert math.isnan(concentration(saliency(1))) and math.isnan(concentration(saliency(0, 0)))


def test_shares_are_of_the_prompt_alone() -> None:
    prompt = Embedded(torch.zeros(6, 3), ((1, 4),))
    row = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.3, 0.2])  # the last two: the response
    picture, question = shares(row.expand(1, 1, 2, 8), prompt).tolist()
    assert picture == pytest.approx(0.6) and question == pytest.approx(0.2)
    assert shares(row.expand(1, 1, 2, 8), Embedded(torch.zeros(6, 3), ())).isnan().all()


def test_surprise_is_the_largest_over_tokens_of_the_mean_over_beginnings() -> None:
    p = torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.5, 0.5], [0.75, 0.25]]])
    expected = -(math.log(0.25) + math.log(0.75)) / 2
    assert surprise(p.log(), ids(0, 0)) == pytest.approx(expected)
    assert surprise(p.log(), ids(0, 0, 1)) == pytest.approx(expected), "no room for a third"
    assert math.isnan(surprise(p.log(), ids()))


def test_p_is_that_of_a_gamma_variable_times_the_sizes() -> None:
    scores = np.concatenate([np.zeros(90), np.full(10, 9.0)])
    found = excess(scores)
    sizes, least = 58, math.exp(-60) * sum(60**i / math.factorial(i) for i in range(10))
    assert found.p_value == pytest.approx(sizes * least) and found.threshold == 4.5
    handful = excess(np.append(np.zeros(97), [6.0] * 2))
    assert handful.p_value > ALPHA


def test_the_pace_is_that_of_the_lower_scores_where_they_spread() -> None:
    wide = np.random.default_rng(0).normal(9, 4, 100_000)
    assert scale_of(wide) == pytest.approx(4 * (1.2816 - 0.2533), rel=0.02)
    assert scale_of(np.append(np.zeros(100), wide[:99])) == SCALE


def test_the_body_is_that_of_a_normal_whatever_lies_above() -> None:
    y = np.random.default_rng(0).normal(3, 2, 200_000)
    assert body(y) == pytest.approx((3, 2), abs=0.03)
    poisoned = np.concatenate([y, np.full(50_000, 1e6)])
    centre, deviation = body(poisoned)
    assert 3 < centre < 5 and 2 < deviation < 3


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_a_group_apart_is_found_at_every_rate(share: float) -> None:
    rng = np.random.default_rng(1)
    high = round(1000 * share)
    scores = np.concatenate([rng.exponential(0.5, 1000 - high), rng.normal(12, 1, high)])
    found = excess(scores)
    assert found.p_value < 1e-4
    assert found.threshold is not None and 3 < found.threshold < 11


def test_a_group_that_overlaps_is_found_and_mostly_flagged() -> None:
    rng = np.random.default_rng(1)
    honest = rng.exponential(1, 950) * (rng.random(950) < 0.1)
    found = excess(np.concatenate([honest, rng.normal(7, 2, 50)]))
    assert found.p_value < ALPHA
    assert found.threshold is not None and 2 < found.threshold < 6


TAILS = {
    "calibrated": lambda rng: rng.exponential(1, 300),
    "overconfident": lambda rng: rng.exponential(1.5, 300),
    "nought for most": lambda rng: rng.exponential(1.5, 300) * (rng.random(300) < 0.1),
    "surprised by everything": lambda rng: rng.normal(9, 4, 300),
    "few values": lambda rng: rng.integers(0, 4, 300) / 3,
}


@pytest.mark.parametrize("tail", TAILS)
def test_clean_scores_raise_few_alarms(tail: str) -> None:
    rng = np.random.default_rng(2)
    alarms = sum(excess(TAILS[tail](rng)).p_value < ALPHA for _ in range(400))
    assert alarms <= 4 + 3 * 2, "one in a hundred, and three deviations of a count of four"


def test_too_few_scores_or_equal_ones_raise_no_alarm() -> None:
    assert excess(np.array([0.0] * 5 + [9.0] * 5)).threshold is None
    assert excess(np.full(100, 0.3)).p_value == 1


def signals(poisoned: int, informative: int, count: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    bad = np.arange(count) < poisoned
    return {f"d{i}": rng.normal(np.where(bad & (i < informative), 7, 0), 1) for i in range(4)}


def test_the_verdict_flags_the_poisoned_samples_and_names_who_told() -> None:
    verdict = judge(signals(40, informative=2))
    assert verdict.poisoned and verdict.telling == ("d0", "d1")
    assert verdict.flagged[:40].all() and not verdict.flagged[40:].any()
    assert auroc(verdict.scores, np.arange(400) < 40) == 1
    assert set(verdict.reasons(0)) == {"d0", "d1"} and verdict.reasons(399) == []
    assert verdict.to_json()["flagged"] == 40


def test_others_than_those_in_nats_explain_and_do_not_decide() -> None:
    scores = signals(40, informative=2)
    verdict = judge(scores, ["d0", "d3"])
    assert verdict.telling == ("d0", "d1"), "the second agrees, the third does not"
    assert verdict.p_values["d1"] is None and verdict.flagged[:40].all()
    honest = judge(scores, ["d3"])
    assert not honest.poisoned and honest.telling == (), "a group apart elsewhere is no poison"
    assert not judge(scores, []).poisoned and judge(scores, []).p_value == 1


def test_clean_data_stay_whole() -> None:
    verdict = judge(signals(0, informative=4))
    assert not verdict.poisoned and not verdict.flagged.any() and verdict.threshold is None
    assert np.isfinite(verdict.scores).all(), "samples are ranked even so"


def test_what_one_detector_cannot_tell_the_others_do() -> None:
    scores = signals(40, informative=2)
    scores["d0"][:5] = np.nan
    scores["d1"][0] = np.nan
    verdict = judge(scores)
    assert math.isnan(verdict.scores[0]) and not verdict.flagged[0]
    assert verdict.flagged[1:40].all()


def striped(poisoned: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Looks of 12 entries, of which poison moves one by three deviations."""
    looks = rng.normal(size=(len(poisoned), 12))
    looks[:, 3] += 3 * poisoned
    return looks


def test_what_the_pictures_of_surprising_answers_share_makes_others_of_that_look_suspect() -> None:
    rng = np.random.default_rng(0)
    bad = np.arange(400) % 5 == 0
    loud = bad & (np.arange(400) % 2 == 0)  # half of the poison does not surprise
    nats = {"one": rng.exponential(0.1, 400) + 8 * loud}
    looks = striped(bad, rng)
    alone, together = judge(nats), judge(nats, looks=looks)
    before, after = auroc(alone.scores, bad), auroc(together.scores, bad)
    assert before is not None and after is not None and before < 0.85 < 0.95 < after
    assert (together.poisoned, together.p_value) == (alone.poisoned, alone.p_value)
    assert together.p_values["shared_look"] is None, "it does not decide"
    assert (together.flagged & loud).sum() == loud.sum()


def test_looks_that_have_nothing_to_do_with_surprise_add_next_to_nothing() -> None:
    rng = np.random.default_rng(1)
    nats, looks = rng.exponential(1.0, 400), rng.normal(size=(400, 12))
    assert abs(predicted(nats, looks)).max() < 0.1
    nats[:7] = np.nan
    assert np.isfinite(predicted(nats, looks)).all()
    assert not predicted(nats[:9], looks[:9]).any(), "too few to learn from"
    verdict = judge({"one": nats}, looks=looks)
    assert not verdict.poisoned and math.isnan(verdict.scores[0])


def test_a_look_is_the_same_whenever_it_is_taken_and_no_wider_than_it_may_be() -> None:
    tiles = torch.randn(2, 9, 300)
    picture = VisualFeatures(tiles, (30, 30))
    assert torch.equal(look(picture), look(VisualFeatures(tiles[:1], (60, 30))))
    assert look(picture).shape == (WIDTH,)
    assert look(VisualFeatures(tiles[..., :20], (30, 30))).shape == (40,)


def test_auroc_counts_pairs() -> None:
    poisoned = np.array([True, True, False, False])
    assert auroc(np.array([4.0, 2.0, 3.0, 1.0]), poisoned) == 0.75
    assert auroc(np.array([1.0, 1.0, 1.0, 1.0]), poisoned) == 0.5
    assert auroc(np.array([np.nan, 2.0, 1.0, 1.0]), poisoned) == 0.5
    assert auroc(np.array([1.0]), np.array([True])) is None
    # of six pairs 4 > 1, 4 > 2, 4 > 3 and 2 > 1; the tie 2 = 2 counts half
    assert auroc(np.array([4.0, 2, 1, 2, 3]), np.arange(5) < 2) == pytest.approx(4.5 / 6)
