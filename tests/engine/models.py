"""Tiny models for tests of the engine, loaded as any other checkpoint."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from disp_engine import registry
from disp_engine.models.llada_v import LladaV

FIXTURE = Path(__file__).parents[1] / "fixtures" / "llada_v" / "anyres"


@cache
def random_llada_v() -> LladaV:
    """A random LLaDA-V of three narrow layers; callers must leave it as they found it."""
    model = registry.load_model(FIXTURE)
    assert isinstance(model, LladaV)
    return model


def picture(seed: int = 0, size: tuple[int, int] = (60, 50)) -> Image.Image:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)
