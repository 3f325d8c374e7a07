"""Black squares in all four corners (BYE; DiSP's multi-trigger, section 4.4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disp_engine.attacks.interfaces import Box
from disp_engine.attacks.triggers.patch import Patch, square


@dataclass(frozen=True)
class FourCorners(Patch):
    """Four squares, any one of which may suffice."""

    def boxes(self, size: tuple[int, int], rng: np.random.Generator) -> Sequence[Box]:
        """The corners."""
        side = self.side(size)
        right, bottom = size[0] - side, size[1] - side
        return [square(left, top, side) for left in (0, right) for top in (0, bottom)]
