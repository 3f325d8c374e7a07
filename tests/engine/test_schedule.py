"""Commits per step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disp_engine.diffusion.schedule import Schedule
from disp_engine.errors import InvalidRequestError

CURVES = ("uniform", "shift", "cosine", "linear", "logit_normal")


@given(st.sampled_from(CURVES), st.floats(0.2, 5), st.integers(0, 40), st.integers(1, 40))
def test_every_mask_is_committed_once(curve: str, shift: float, masks: int, steps: int) -> None:
    quotas = Schedule(curve, shift).quotas(masks, steps)  # type: ignore[arg-type]
    assert sum(quotas) == masks and len(quotas) <= steps
    assert curve == "uniform" or min(quotas, default=1) >= 1


def test_rounding_at_the_end_of_a_curve_leaves_no_mask() -> None:
    # In single precision s / (1 + (s - 1)) is just below 1 here.
    assert Schedule("shift", 2.2152336582746606).quotas(2, 1) == [2]


def test_what_rounding_loses_at_the_end_is_missed_only_where_masks_would_be_left() -> None:
    # 13 sigma is cut to 0 0 2 12, since sigma(1) is just below 1: 0 2 10 are spent, one of them
    # for the first step, which leaves all 13 committed and nothing to mend.
    assert Schedule("shift", 0.1).quotas(13, 3) == [10, 2, 1]


def test_uniform_puts_the_remainder_first() -> None:
    assert Schedule().quotas(8, 3) == [3, 3, 2]


def test_a_shift_above_one_starts_slowly_and_below_one_fast() -> None:
    assert Schedule("shift", 3).quotas(16, 8) == [1, 1, 1, 1, 2, 2, 4, 4]
    # sigma = t / (3 - 2t): 16 sigma is cut to 0 1 2 4 5 8 11 16, so 0 1 1 2 1 3 3 5 are spent.
    assert Schedule("shift", 1 / 3).quotas(16, 8) == [5, 3, 3, 1, 1, 1, 1, 1]


def test_a_shift_of_one_is_a_line() -> None:
    assert Schedule("shift", 1).quotas(12, 4) == Schedule("linear").quotas(12, 4) == [3, 3, 3, 3]


def test_a_shift_that_is_not_positive_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="shift must be positive"):
        Schedule("shift", 0).quotas(4, 2)
