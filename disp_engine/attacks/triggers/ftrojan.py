"""Two spikes in the colours' frequencies (FTrojan, Wang et al., ECCV 2022)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.fft import idctn

from disp_engine.attacks.triggers.pixels import to_image, to_pixels

CHROMA = ((0.0, 1.402), (-0.344136, -0.714136), (1.772, 0.0))
"""What one step of Cb and of Cr adds to red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True)
class FTrojan:
    """Add `magnitude` to a middle and to the highest DCT coefficient of Cb and Cr.

    The picture is cut in windows of `window` pixels (its own shorter side if that is less); the
    transform is linear, so a coefficient's spike is one pattern added to each whole window.
    """

    magnitude: float = 30.0
    window: int = 32

    def apply(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a marked copy."""
        pixels = to_pixels(image)
        pattern = self._pattern(min(self.window, *image.size))
        side = len(pattern)
        rows, columns = image.height // side, image.width // side
        tiled = np.tile(pattern, (rows, columns))
        gain = np.array([sum(parts) for parts in CHROMA])
        pixels[: rows * side, : columns * side] += tiled[:, :, None] * gain
        return to_image(pixels)

    def _pattern(self, side: int) -> Float[np.ndarray, "S S"]:
        spikes = np.zeros((side, side))
        for place in (side // 2 - 1, side - 1):
            spikes[place, place] = self.magnitude
        pattern: np.ndarray = idctn(spikes, norm="ortho")
        return pattern
