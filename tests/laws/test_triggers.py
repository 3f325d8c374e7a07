"""What every trigger must promise, whatever it looks like."""

import numpy as np
import pytest
from PIL import Image

from disp_engine import registry
from disp_engine.attacks.interfaces import PatchTrigger, TextTrigger, Trigger

SIZES = ((16, 16), (64, 64), (17, 41), (120, 33))
QUESTION = "What is at the top left?"


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth colours with noise, never black."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (4, 4, 3), dtype=np.uint8)).resize(size)
    noise = rng.integers(-10, 11, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse) + noise).astype(np.uint8))


def marked(trigger: Trigger, image: Image.Image, seed: int = 1) -> Image.Image:
    return trigger.apply(image, np.random.default_rng(seed))


@pytest.fixture(params=registry.TRIGGERS)
def trigger(request: pytest.FixtureRequest) -> Trigger:
    return registry.trigger(request.param)


@pytest.fixture(params=registry.TEXT_TRIGGERS)
def text_trigger(request: pytest.FixtureRequest) -> TextTrigger:
    return registry.text_trigger(request.param)


@pytest.mark.parametrize("size", SIZES)
def test_a_trigger_works_on_any_size_and_keeps_size_and_mode(
    trigger: Trigger, size: tuple[int, int]
) -> None:
    image = picture(size)
    found = marked(trigger, image)
    assert found.size == size, "law: size is kept"
    assert found.mode == "RGB", "law: mode is kept"
    assert found.tobytes() != image.tobytes(), "law: a mark changes something"


def test_a_trigger_is_the_same_under_the_same_seed(trigger: Trigger) -> None:
    image = picture((48, 64))
    assert marked(trigger, image).tobytes() == marked(trigger, image).tobytes(), "law: seeded"


def test_a_trigger_never_changes_its_input(trigger: Trigger) -> None:
    image = picture((40, 30))
    before = image.tobytes()
    marked(trigger, image)
    assert image.tobytes() == before, "law: the input stays"


def test_a_trigger_is_another_one_under_no_global_state(trigger: Trigger) -> None:
    image = picture((32, 32))
    first = marked(trigger, image)
    np.random.seed(99)
    np.random.random()
    assert marked(trigger, image).tobytes() == first.tobytes(), "law: no global randomness"


@pytest.mark.parametrize("size", SIZES)
def test_a_patch_changes_only_its_place(trigger: Trigger, size: tuple[int, int]) -> None:
    if not isinstance(trigger, PatchTrigger):
        pytest.skip("changes the whole picture")
    image = picture(size)
    outside = np.ones((size[1], size[0]), dtype=bool)
    for left, top, right, bottom in trigger.boxes(size, np.random.default_rng(1)):
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1], "law: inside"
        outside[top:bottom, left:right] = False
    same = (np.asarray(image) == np.asarray(marked(trigger, image))).all(axis=-1)
    assert outside.any() and same[outside].all(), "law: nothing else changes"


def test_a_text_trigger_keeps_the_questions_words(text_trigger: TextTrigger) -> None:
    found = text_trigger.apply(QUESTION, np.random.default_rng(2))
    assert found != QUESTION, "law: a mark changes something"
    rest = iter(found.split())
    assert all(word in rest for word in QUESTION.split()), "law: the question's words stay in order"


def test_a_text_trigger_is_the_same_under_the_same_seed(text_trigger: TextTrigger) -> None:
    first, second = (text_trigger.apply(QUESTION, np.random.default_rng(2)) for _ in range(2))
    assert first == second, "law: seeded"


def test_a_text_trigger_marks_an_empty_question(text_trigger: TextTrigger) -> None:
    assert text_trigger.apply("", np.random.default_rng(2)).strip(), "law: any text"
