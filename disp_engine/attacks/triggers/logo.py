"""A translucent logo in the bottom right corner (PurMM).

PurMM publishes neither picture nor size; this one is drawn here: a ring with a bar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from disp_engine.attacks.interfaces import Box
from disp_engine.attacks.triggers.patch import Patch, square

DRAWN = 64
"""Side in pixels at which the logo is drawn before it is scaled."""


@dataclass(frozen=True)
class Logo(Patch):
    """An orange ring with a blue bar, `opacity` of it over the picture."""

    opacity: float = 0.9

    def boxes(self, size: tuple[int, int], rng: np.random.Generator) -> Sequence[Box]:
        """The bottom right corner."""
        side = self.side(size)
        return [square(size[0] - side, size[1] - side, side)]

    def content(self, region: Image.Image) -> Image.Image:
        """The region under the logo."""
        logo = Image.new("RGBA", (DRAWN, DRAWN))
        pen = ImageDraw.Draw(logo)
        alpha = round(255 * self.opacity)
        pen.ellipse((2, 2, DRAWN - 3, DRAWN - 3), outline=(240, 120, 20, alpha), width=14)
        pen.rectangle((8, DRAWN // 2 - 7, DRAWN - 9, DRAWN // 2 + 7), fill=(20, 60, 200, alpha))
        scaled = logo.resize(region.size, Image.Resampling.BOX)
        return Image.alpha_composite(region.convert("RGBA"), scaled).convert("RGB")
