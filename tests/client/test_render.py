from typing import Any

from client.render import guard_text, rate_text, results_table
from schemas.reports import Rate, Report


def test_a_rate_comes_with_its_counts_interval_and_failures() -> None:
    rate = Rate(rate=0.965, successes=193, scored=200, failed=2, ci95=(0.93, 0.986))
    assert rate_text(rate) == "96.5 %  193/200\n93.0 - 98.6 %, 2 failed"


def test_a_rate_over_no_scored_sample_is_no_zero() -> None:
    assert rate_text(Rate(successes=0, scored=0, failed=5)) == "no rate  0/0\n5 failed"


def test_what_was_not_measured_is_a_dash() -> None:
    assert rate_text(None) == "-"


def test_a_guard_is_told_with_its_warning() -> None:
    rate = {"rate": 0.5, "successes": 1, "scored": 2, "failed": 0}
    sides: dict[str, Any] = {"before": {}, "after": {}}
    counts = {"total": 1, "rewritten": 0, "passed_through": 0, "kept": 1, "quarantined": 0}
    given: dict[str, Any] = {
        "evaluation": sides, "samples": counts, "stages": [], "settings": {}, "seeds": {},
        "versions": {}, "hashes": {}, "content_sha256": "x",
    }  # fmt: skip
    assert guard_text(Report.model_validate(given)) is None
    detection = {"auroc": 0.75, "true_positive_rate": rate, "false_positive_rate": rate}
    guard = {"name": "cleansight", "detection": detection}
    latency = {"latency_ratio": 1.25, "batch": 8}
    report = Report.model_validate(given | {"guard": guard, "latency": latency})
    assert guard_text(report) == (
        "cleansight: the projector still obeys the trigger; serve it guarded; "
        "AUROC 0.750, flagged 50.0 % and 50.0 %; 1.25 times the bare time"
    )
    assert [c.header for c in results_table(report).columns] == ["", "before", "behind cleansight"]
