from math import isclose

from disp_engine.metrics.rate import Rate


def test_wilson_interval_of_one_in_two_hundred_is_the_published_one() -> None:
    low, high = Rate(1, 200).ci95 or (0, 0)
    assert isclose(low, 0.000883, abs_tol=2e-6)
    assert isclose(high, 0.027778, abs_tol=2e-5)


def test_interval_at_zero_successes_does_not_collapse() -> None:
    low, high = Rate(0, 200).ci95 or (1, 1)
    assert low == 0
    assert isclose(high, 1.959963984540054**2 / (200 + 1.959963984540054**2), rel_tol=1e-12)


def test_failed_items_are_counted_and_never_scored_as_safe() -> None:
    rate = Rate(successes=9, scored=10, failed=90)
    assert rate.rate == 0.9
    assert rate.to_json()["failed"] == 90


def test_nothing_scored_gives_no_rate_rather_than_zero() -> None:
    assert Rate(0, 0, failed=3).to_json() == {
        "successes": 0, "scored": 0, "failed": 3, "rate": None, "ci95": None,
    }  # fmt: skip
