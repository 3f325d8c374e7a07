"""A faint second picture over the whole of the first (Chen et al. 2017; DiSP, section 4.4)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

GRID = 8


@dataclass(frozen=True)
class Blended:
    """(1 - `opacity`) x + `opacity` r, with r a smooth random picture drawn from `seed`.

    DiSP publishes neither ratio nor picture; 0.2 is the value usual elsewhere.
    """

    opacity: float = 0.2
    seed: int = 0

    def apply(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a marked copy."""
        colours = np.random.default_rng(self.seed).integers(0, 256, (GRID, GRID, 3), dtype=np.uint8)
        over = Image.fromarray(colours).resize(image.size, Image.Resampling.BICUBIC)
        return Image.blend(image, over, self.opacity)
