"""BYE's split on scores whose groups are known, and its entropies on known attention."""

import numpy as np
import pytest
import torch

from disp_engine.defences.bye import ByeSettings, narrow_group
from disp_engine.detection.attention_entropy import visual_entropies
from disp_engine.interfaces import Generation
from disp_engine.records import Embedded
from tests.engine.models import random_llada_v

SETTINGS = ByeSettings()


def groups(low: int, high: int, layers: int, seed: int = 0) -> np.ndarray:
    """`low` samples around 0.5, then `high` around 0.9; odd layers see no difference."""
    rng = np.random.default_rng(seed)
    centres = np.array([0.5] * low + [0.9] * high)
    blind = np.full_like(centres, 0.8)
    columns = [rng.normal(blind if layer % 2 else centres, 0.02) for layer in range(layers)]
    return np.stack(columns, axis=1)


def test_the_narrow_group_is_found() -> None:
    marked = narrow_group(groups(20, 80, layers=4), SETTINGS)
    assert marked[:20].all() and not marked[20:].any()


def test_clean_data_are_not_cut_in_two() -> None:
    for seed in range(10):
        scores = np.random.default_rng(seed).normal(0.8, 0.05, (100, 4))
        assert not narrow_group(scores, SETTINGS).any()


def test_a_handful_of_outliers_is_no_group() -> None:
    assert not narrow_group(groups(4, 196, layers=2), ByeSettings(least_weight=0.05)).any()
    assert narrow_group(groups(4, 196, layers=2), SETTINGS).sum() == 4


def test_few_samples_are_never_split() -> None:
    assert not narrow_group(groups(2, 4, layers=2), SETTINGS).any()


def test_entropy_is_one_for_an_even_look_and_nought_for_a_single_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = random_llada_v()
    prompt = Embedded(torch.zeros(6, len(model.mask_embedding)), ((1, 5),))
    generation = Generation(length=4, block_length=4)
    for weights, expected in (([0.1] * 4, 1.0), ([0.3, 0, 0, 0], 0.0), ([0.2, 0.2, 0, 0], 0.5)):
        row = torch.zeros(10)
        row[1:5] = torch.tensor(weights)

        def attention_rows(embeddings, rows, layers, attended=None, row=row):  # type: ignore[no-untyped-def]
            return row.expand(len(embeddings), len(layers), 3, rows.shape[1], len(row))

        monkeypatch.setattr(model, "attention_rows", attention_rows)
        (found,) = visual_entropies(model, [prompt], generation)
        torch.testing.assert_close(found, torch.full((model.depth,), expected))
