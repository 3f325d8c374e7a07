"""What the triggers that overwrite squares have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from disp_engine.attacks.interfaces import Box

SHARE = 1 / 8
"""Side of a patch as a share of the shorter edge.

The paper pastes 20 pixels on pictures of some hundreds; a share keeps the trigger's size in tokens
on pictures of any resolution.
"""


@dataclass(frozen=True)
class Patch:
    """Overwrite each of `boxes` with `content`; `share` is the side over the shorter edge."""

    share: float = SHARE

    def apply(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a marked copy."""
        marked = image.copy()
        for box in self.boxes(image.size, rng):
            marked.paste(self.content(image.crop(box)), box)
        return marked

    def side(self, size: tuple[int, int]) -> int:
        """Side of a patch in pixels."""
        return max(1, round(min(size) * self.share))

    def boxes(self, size: tuple[int, int], rng: np.random.Generator) -> Sequence[Box]:
        """The top left corner, unless a trigger says otherwise."""
        return [square(0, 0, self.side(size))]

    def content(self, region: Image.Image) -> Image.Image:
        """What stands in place of `region`: black, unless a trigger says otherwise."""
        return Image.new("RGB", region.size)


def square(left: int, top: int, side: int) -> Box:
    """The box of a square."""
    return (left, top, left + side, top + side)


def centred(x: float, y: float, side: int) -> Box:
    """The square around a point (in pixels)."""
    return square(round(x - side / 2), round(y - side / 2), side)
