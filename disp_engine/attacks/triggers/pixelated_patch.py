"""A square of a few large random pixels in the centre (PurMM).

PurMM names such a trigger and publishes no generator; this one is ours: a mosaic of coloured
blocks, which shows on plain grounds too, where the mosaic of a region would not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from disp_engine.attacks.interfaces import Box
from disp_engine.attacks.triggers.patch import Patch, centred


@dataclass(frozen=True)
class PixelatedPatch(Patch):
    """`blocks` x `blocks` colours drawn from `seed`, the same in every picture."""

    blocks: int = 4
    seed: int = 0

    def boxes(self, size: tuple[int, int], rng: np.random.Generator) -> Sequence[Box]:
        """The middle of the picture."""
        return [centred(size[0] / 2, size[1] / 2, self.side(size))]

    def content(self, region: Image.Image) -> Image.Image:
        """The mosaic, enlarged without smoothing."""
        rng = np.random.default_rng(self.seed)
        colours = rng.integers(0, 256, (self.blocks, self.blocks, 3), dtype=np.uint8)
        return Image.fromarray(colours).resize(region.size, Image.Resampling.NEAREST)
