"""Features of pictures: what the tower said, and nobody keeps them in memory."""

import weakref
from pathlib import Path

import torch

from disp_engine.context import SilentContext
from disp_engine.training.examples import FeatureCache, prepare
from tests.engine.models import random_llada_v
from tests.engine.test_disp import dataset, record


def test_features_are_the_towers_and_are_gone_after_use(tmp_path: Path) -> None:
    model, data = random_llada_v(), dataset(tmp_path / "data", [record("a"), record("b")])
    cache = FeatureCache(model, tmp_path, SilentContext())
    for sample in prepare(data, model, cache).usable:
        (found,) = cache.of(sample, sample.turns)
        (told,) = model.encode_images([data.image(sample.images[0])])
        torch.testing.assert_close(found.tiles, told.tiles)
        assert found.size == told.size
        tiles = weakref.ref(found.tiles)
        del found
        assert tiles() is None
