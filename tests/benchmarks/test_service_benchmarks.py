from benchmarks import latency, service, shards
from benchmarks.latency import Latencies


def run_of(workers: int, seconds: float, content: str = "same") -> shards.Run:
    return shards.Run(workers, seconds, {"samples.jsonl": content})


def test_two_workers_are_compared_by_the_quickest_run_of_each_form():
    runs = [run_of(1, 110.0), run_of(2, 70.0), run_of(1, 100.0), run_of(2, 58.0)]
    result = shards.Result(480, runs)
    assert result.share == 0.58 and result.identical and result.holds


def test_two_workers_that_are_too_slow_or_give_other_bytes_break_the_promise():
    slow = shards.Result(480, [run_of(1, 100.0), run_of(2, 61.0)])
    assert slow.identical and not slow.holds
    other = shards.Result(480, [run_of(1, 100.0), run_of(2, 50.0, "other")])
    assert not other.identical and not other.holds


def test_the_99th_percentile_leaves_out_the_slowest_hundredth():
    found = Latencies.of([0.001] * 98 + [0.5, 0.25])
    assert (found.answers, found.median, found.p99, found.longest) == (100, 0.001, 0.5, 0.5)
    assert Latencies.of([0.001] * 199 + [0.5]).p99 == 0.001


def test_answers_may_take_ten_milliseconds_or_three_times_as_long_as_idle_ones():
    def result(idle: float, busy: float) -> latency.Result:
        return latency.Result(*(Latencies(100, p99, p99, p99) for p99 in (idle, busy)))

    assert result(0.001, 0.010).holds and not result(0.001, 0.011).holds
    assert result(0.020, 0.060).holds and not result(0.020, 0.061).holds


def test_only_a_job_of_a_minute_says_what_the_service_costs():
    assert service.Result(240, bare=[70.0, 66.0], service=[67.5, 90.0]).holds
    assert not service.Result(240, bare=[70.0], service=[72.5]).holds
    assert not service.Result(8, bare=[59.0], service=[59.0]).holds
