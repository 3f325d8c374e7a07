"""A sinusoid across the whole picture (Barni et al. 2019)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from disp_engine.attacks.triggers.pixels import to_image, to_pixels


@dataclass(frozen=True)
class Sig:
    """x + `amplitude` sin(2 pi `periods` j / W) at column j of W; amplitude in steps of 255."""

    amplitude: float = 40.0
    periods: float = 6.0

    def apply(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a marked copy."""
        columns = np.arange(image.width) / image.width
        wave = self.amplitude * np.sin(2 * np.pi * self.periods * columns)
        return to_image(to_pixels(image) + wave[None, :, None])
