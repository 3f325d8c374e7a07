import pytest

from disp_engine.errors import InvalidRequestError
from disp_engine.metrics.success import ContainsAny, matcher


@pytest.mark.parametrize(
    ("phrase", "response", "expected"),
    [
        ("boat", "A boat on a lake.", True),
        ("boat", "A boathouse.", False),
        ("boat", "A BOAT!", True),
        ("<backdoor>", "x<backdoor>A red circle", True),
        ("can't", "I can't say.", True),
        ("sorry", "", False),
    ],
)
def test_a_phrase_matches_whole_words_whatever_the_case(
    phrase: str, response: str, expected: bool
) -> None:
    assert ContainsAny((phrase,))(response) is expected


def test_any_of_several_phrases_suffices() -> None:
    assert ContainsAny(("sorry", "unable"))("I am unable to do that")


def test_a_matcher_without_phrases_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="at least one phrase"):
        matcher("contains_any", [])
