import pytest

from disp_engine.defences.settings import DispSettings
from disp_engine.errors import InvalidRequestError


def test_later_layers_win_and_none_leaves_what_lies_below() -> None:
    card = {"learning_rate": 1e-3, "mask_ratio": 0.5}
    settings = DispSettings.resolve(card, {"mask_ratio": None, "learning_rate": 2e-3})
    assert (settings.learning_rate, settings.mask_ratio) == (2e-3, 0.5)


def test_retraining_takes_a_tenth_of_the_epochs() -> None:
    assert DispSettings(epochs=20).retraining().epochs == 2
    assert DispSettings(epochs=20, retrain_share=0.2).retraining().epochs == 4
    assert DispSettings(epochs=20, retrain_epochs=5).retraining().epochs == 5


def test_retraining_is_gentler_only_from_where_the_first_tuning_ended() -> None:
    card = {"epochs": 20, "learning_rate": 1e-3, "retrain_learning_rate": 5e-4}
    again, anew = DispSettings(**card).retraining(), DispSettings(start="base", **card).retraining()
    assert (again.epochs, again.learning_rate) == (2, 5e-4)
    assert (anew.epochs, anew.learning_rate) == (20, 1e-3)
    assert DispSettings(learning_rate=1e-3).retraining().learning_rate == 1e-3


@pytest.mark.parametrize(
    ("lengths", "expected"), [([5] * 100, 32), ([5] * 96 + [90] * 4, 32), ([33] * 10, 64), ([], 32)]
)
def test_auto_length_is_the_fewest_blocks_for_the_95th_percentile(
    lengths: list[int], expected: int
) -> None:
    assert DispSettings().generation(lengths).length == expected


def test_the_papers_preset_is_32_32_32() -> None:
    generation = DispSettings(generation_length=32, steps=32).generation([500])
    assert (generation.length, generation.block_length, generation.steps) == (32, 32, 32)


@pytest.mark.parametrize(
    "bad",
    [
        {"mask_ratio": 1.5},
        {"epochs": 0},
        {"generation_length": 40},
        {"nonsense": 1},
    ],
)
def test_settings_that_cannot_be_run_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError, match="hyperparameters"):
        DispSettings.resolve(bad)
