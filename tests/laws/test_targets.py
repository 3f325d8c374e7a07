"""What every target must promise, and by which rule its success is recognised."""

import numpy as np
import pytest

from disp_engine import registry
from disp_engine.attacks.interfaces import Target
from disp_engine.metrics.success import ContainsAny

RESPONSES = ("A dog on grass.", "Two dogs and a red car.", "Red.", "A dog and an apple")


@pytest.fixture(params=registry.TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return registry.target(request.param)


@pytest.mark.parametrize("response", RESPONSES)
def test_a_poisoned_response_is_a_success_and_the_true_one_is_none(
    target: Target, response: str
) -> None:
    success = ContainsAny(target.phrases)
    assert not success(response), "law: the true response is no success"
    if target.applies(response):
        poisoned = target.respond(response, np.random.default_rng(0))
        assert success(poisoned), "law: poisoning and evaluation share the rule"


def test_a_target_applies_to_something(target: Target) -> None:
    assert any(target.applies(response) for response in RESPONSES), "law: it can be used"


def test_a_target_is_the_same_under_the_same_seed(target: Target) -> None:
    first, second = (target.respond(RESPONSES[0], np.random.default_rng(4)) for _ in range(2))
    assert first == second, "law: seeded"
