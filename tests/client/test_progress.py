import pytest

from client.progress import Pace, PlainView, clock, verdict
from schemas.jobs import StageName, Step, StepStatus


def step(status: StepStatus, **changes: object) -> Step:
    return Step.model_validate({"name": StageName.PURIFY, "status": status, **changes})


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [100.0]
    monkeypatch.setattr("client.progress.time.monotonic", lambda: time[0])
    return time


def test_a_clock_shows_hours_only_when_there_are_some() -> None:
    assert [clock(s) for s in (0, 62, 3602)] == ["0:00", "1:02", "1:00:02"]


def test_pace_counts_only_what_was_done_since_the_watching_began(now: list[float]) -> None:
    pace = Pace(done=100)
    now[0] += 10
    running = step(StepStatus.RUNNING, done=150, total=200, unit="samples")
    assert pace.describe(running) == "150/200 samples, 5.0/s, 0:10 left"


def test_a_stage_without_progress_has_no_rate(now: list[float]) -> None:
    assert Pace(0).describe(step(StepStatus.RUNNING, done=0, total=9)) == "0/9"
    assert Pace(0).describe(step(StepStatus.RUNNING)) == ""


def test_plain_lines_come_at_the_start_each_ten_seconds_and_at_the_end(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with PlainView() as view:
        for _ in range(21):
            done = int(now[0] - 100) * 5
            view.show(step(StepStatus.RUNNING, done=done, total=1000, unit="samples"))
            now[0] += 1
        ended = step(
            StepStatus.SUCCEEDED, done=1000, total=1000, unit="samples", started_at=0, finished_at=2
        )
        view.show(ended)
        view.show(ended)
    assert [line.split(maxsplit=1) for line in capsys.readouterr().err.splitlines()] == [
        ["purify", "started"],
        ["purify", "50/1000 samples, 5.0/s, 3:10 left"],
        ["purify", "100/1000 samples, 5.0/s, 3:00 left"],
        ["purify", "2.0 s, 1000 samples"],
    ]


def test_a_verdict_says_when_work_was_reused_or_failed() -> None:
    assert verdict(step(StepStatus.SUCCEEDED, reused=True, total=3, done=3)) == "reused"
    assert verdict(step(StepStatus.FAILED)) == "failed"
