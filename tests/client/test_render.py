from client.render import rate_text
from schemas.reports import Rate


def test_a_rate_comes_with_its_counts_interval_and_failures() -> None:
    rate = Rate(rate=0.965, successes=193, scored=200, failed=2, ci95=(0.93, 0.986))
    assert rate_text(rate) == "96.5 %  193/200\n93.0 - 98.6 %, 2 failed"


def test_a_rate_over_no_scored_sample_is_no_zero() -> None:
    assert rate_text(Rate(successes=0, scored=0, failed=5)) == "no rate  0/0\n5 failed"


def test_what_was_not_measured_is_a_dash() -> None:
    assert rate_text(None) == "-"
