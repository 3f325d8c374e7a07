"""A shortcut is taken where 59 answers agree, and nowhere else."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from disp_engine.context import SilentContext
from disp_engine.gate import Comparison, Gate
from disp_engine.interfaces import Generation
from disp_engine.stages import Stage

QUICK = Generation(kv_cache="prefix")


class Model:
    """Answers with the item, and with something else to the `wrong` ones on the shortcut."""

    def __init__(self, wrong: Sequence[int] = ()) -> None:
        self.wrong, self.asked = wrong, {True: 0, False: 0}

    def __call__(self, items: Sequence[int], generation: Generation) -> list[int]:
        self.asked[generation.exact] += len(items)
        return [-1 if item in self.wrong and not generation.exact else item for item in items]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, "purify", {})


def gate() -> Gate:
    return Gate(0, SilentContext(), batch=8, stage="purify")


def test_59_equal_answers_let_it_through_with_a_bound_of_five_percent(stage: Stage) -> None:
    guard, model = gate(), Model()
    assert guard.let_through("a", QUICK, range(1000), stage, model) == QUICK
    assert model.asked == {True: 59, False: 59}
    found = guard.found["purify: a"]
    assert found == Comparison(59, 0) and found.bound == pytest.approx(0.0495, abs=1e-4)


def test_one_other_answer_closes_it_and_no_more_are_asked(stage: Stage) -> None:
    guard, model = gate(), Model(range(1000))
    assert guard.let_through("a", QUICK, range(1000), stage, model) == QUICK.exactly()
    assert model.asked == {True: 8, False: 8}
    assert guard.found["purify: a"].to_json() == {
        "checked": 8,
        "differing": 8,
        "passed": False,
        "bound": None,
    }


def test_what_was_found_is_kept(stage: Stage) -> None:
    gate().let_through("a", QUICK, range(1000), stage, Model())
    later, model = gate(), Model(range(1000))
    assert later.let_through("a", QUICK, range(1000), stage, model) == QUICK
    assert model.asked == {True: 0, False: 0} and later.found["purify: a"].passed


def test_too_few_items_and_an_exact_generation_are_not_compared(stage: Stage) -> None:
    guard, model = gate(), Model()
    assert guard.let_through("few", QUICK, range(58), stage, model).exact
    assert guard.let_through("exact", QUICK.exactly(), range(1000), stage, model).exact
    assert model.asked == {True: 0, False: 0}
    assert guard.found == {"purify: few": Comparison(0, 0)}
