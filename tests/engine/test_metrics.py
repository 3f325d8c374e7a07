"""Metrics against numbers worked out by hand, and TMA/CTI on models whose attribution is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disp_engine.errors import InvalidRequestError
from disp_engine.metrics.cider import cider
from disp_engine.metrics.filtering import filter_quality
from disp_engine.metrics.modality import COALITIONS, attribute, cosine_values
from disp_engine.metrics.utility import (
    defence_effectiveness,
    relative_clean_performance,
    robust_improvement,
    trade_off,
)


def test_the_papers_relative_clean_performance() -> None:
    # Table 1, content insertion: 49.22 after, 49.56 before
    found = relative_clean_performance(0.4922, 0.4956)
    assert found == pytest.approx(0.99314, abs=1e-5)
    assert relative_clean_performance(0.5, 0.0) is None


def test_purmms_trade_off() -> None:
    # LLaVA on ScienceQA: CP 84.63, ASR 0.84, TP (84.63 + 99.16) / 2
    assert trade_off(0.8463, 0.0084) == pytest.approx(0.91895)


def test_der_counts_success_lost_and_accuracy_lost_against_each_other() -> None:
    assert defence_effectiveness((0.9, 0.1), (0.8, 0.7)) == pytest.approx((0.8 - 0.1 + 1) / 2)
    assert defence_effectiveness((0.1, 0.3), (0.7, 0.8)) == pytest.approx(0.5)
    assert defence_effectiveness((0.1, None), (0.7, 0.8)) is None


def test_rir_counts_robust_accuracy_won() -> None:
    assert robust_improvement((0.1, 0.7), (0.8, 0.6)) == pytest.approx((0.6 - 0.2 + 1) / 2)


def test_a_filters_precision_recall_and_f1() -> None:
    found = filter_quality(["a", "b", "c", "x"], ["a", "b", "c", "d", "e", "f"])
    assert (found.precision.rate, found.recall.rate) == (0.75, 0.5)
    assert found.f1 == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert filter_quality([], ["a"]).f1 is None


def test_cider_is_ten_for_the_references_themselves() -> None:
    texts = ["a red circle on white", "two green boats at night", "an old dog runs home"]
    assert cider(texts, [[text] for text in texts]) == pytest.approx(10)


def test_cider_is_nought_without_a_common_word() -> None:
    references = [["a red circle"], ["two green boats"]]
    assert cider(["old dogs run", "under blue skies"], references) == 0
    with pytest.raises(InvalidRequestError):
        cider(["one"], [["one"]])


def values(none: float, image: float, text: float, both: float) -> dict[str, np.ndarray]:
    rows = zip(COALITIONS, (none, image, text, both), strict=True)
    return {name: np.full(20, float(value)) for name, value in rows}


@pytest.mark.parametrize(
    ("runs", "phi_image", "phi_text", "cti"),
    [
        ((0, 1, 0, 1), 1, 0, 0),  # the picture alone
        ((0, 0, 1, 1), 0, 1, 0),  # the text alone
        ((0, 0, 0, 1), 0.5, 0.5, 1),  # both are needed: pure synergy
        ((0, 1, 1, 1), 0.5, 0.5, -1),  # either suffices: pure redundancy
        ((0.25, 0.5, 0.375, 0.625), 0.25, 0.125, 0),  # independent parts add up
    ],
)
def test_a_constructed_model_gets_its_attribution_exactly(
    runs: tuple[float, ...], phi_image: float, phi_text: float, cti: float
) -> None:
    found = attribute(values(*runs), form="asr")  # type: ignore[arg-type]
    assert found.phi_image.value == phi_image
    assert found.phi_text.value == phi_text
    assert found.cti.value == cti
    assert found.phi_image.ci95 == (phi_image, phi_image)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(*[st.floats(-2, 2, width=32)] * 4), min_size=1, max_size=30),
)
def test_the_efficiency_identity_holds(rows: list[tuple[float, float, float, float]]) -> None:
    runs = dict(zip(COALITIONS, np.array(rows).T, strict=True))
    found = attribute(runs, form="cosine")
    total = found.means["both"] - found.means["none"]
    assert abs(found.phi_image.value + found.phi_text.value - total) < 1e-12


def test_saturation_is_flagged_and_collapse_is_the_larger_share() -> None:
    redundant = attribute(values(0, 1, 0.97, 1), form="asr")
    assert redundant.saturated == ("image", "text")
    assert attribute(values(0, 0.1, 0.7, 0.8), form="asr").saturated == ()
    assert attribute(values(0, 0, 1, 1), form="asr").collapse == 1
    assert attribute(values(0, 0, 0, 1), form="asr").collapse == 0.5
    assert attribute(values(0, 0, 0, 0), form="asr").collapse is None


def test_intervals_come_from_resampling_items() -> None:
    image = np.array([1.0] * 30 + [0.0] * 70)
    runs = {"none": np.zeros(100), "image": image, "text": np.zeros(100), "both": image}
    found = attribute(runs, form="asr").phi_image
    assert found.value == pytest.approx(0.3)
    # the binomial's 95 % interval around 0.3 at n = 100 is +- 0.09
    assert found.ci95[0] == pytest.approx(0.21, abs=0.03)
    assert found.ci95[1] == pytest.approx(0.39, abs=0.03)


def test_the_published_value_is_a_margin_of_cosines() -> None:
    target, clean = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    outputs = {"none": np.array([[0.0, 2.0]]), "both": np.array([[3.0, 0.0]]),
               "image": np.array([[1.0, 1.0]]), "text": np.array([[0.0, 1.0]])}  # fmt: skip
    found = cosine_values(outputs, target, clean)
    assert [found[name][0] for name in COALITIONS] == pytest.approx([-1, 0, -1, 1])


def test_runs_on_different_items_are_refused() -> None:
    runs = values(0, 1, 0, 1) | {"both": np.ones(3)}
    with pytest.raises(InvalidRequestError, match="same items"):
        attribute(runs, form="asr")
