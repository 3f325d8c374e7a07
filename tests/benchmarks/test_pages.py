from benchmarks import pages
from benchmarks.pages import Answers, Result


def result(*seconds: float) -> Result:
    found = {"jobs": Answers([0.01] * 20, 0.01), "samples": Answers(seconds, 0.01)}
    return Result(100, 3, "sqlite", found)


def test_the_promise_is_each_pages_own_and_one_slow_answer_in_forty_is_let_pass():
    assert result(*[0.02] * 39, 5.0).holds
    assert not result(*[0.02] * 36, *[0.101] * 4).holds
    told = result(0.1, 0.2, 0.3).to_json()["pages"]["samples"]
    assert told == {"median_ms": 200, "p95_ms": 300, "longest_ms": 300, "processor_ms": 10}


def test_every_page_is_asked_of_a_gateway_of_its_own(tmp_path):
    found = pages.run(tmp_path, samples=120, others=3, rounds=2, database=None)
    assert found.database == "sqlite" and found.jobs == 4
    assert {"jobs", "job", "sample, deep", "samples, flagged, deep", "report"} <= set(found.pages)
    assert all(len(answers.seconds) == 2 for answers in found.pages.values())
