"""A square of Gaussian noise in the top left corner (TrojVLM; DiSP, section 4.4)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from disp_engine.attacks.triggers.patch import Patch


@dataclass(frozen=True)
class NoisePatch(Patch):
    """Grey noise of standard deviation `sigma` around `mean` (of 255), the same in every picture.

    DiSP gives sigma 30 and no mean.
    """

    sigma: float = 30.0
    mean: float = 128.0
    seed: int = 0

    def content(self, region: Image.Image) -> Image.Image:
        """Noise that depends on the size alone."""
        rng = np.random.default_rng(self.seed)
        noise = rng.normal(self.mean, self.sigma, (region.height, region.width, 3))
        return Image.fromarray(noise.round().clip(0, 255).astype(np.uint8))
