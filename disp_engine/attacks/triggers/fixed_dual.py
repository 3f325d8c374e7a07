"""Two black squares at a quarter and three quarters of the width (PurMM, BYE)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disp_engine.attacks.interfaces import Box
from disp_engine.attacks.triggers.patch import Patch, centred


@dataclass(frozen=True)
class FixedDual(Patch):
    """Squares centred at (w/4, h/2) and (3w/4, h/2)."""

    def boxes(self, size: tuple[int, int], rng: np.random.Generator) -> Sequence[Box]:
        """Left and right of the centre."""
        width, height = size
        return [centred(x, height / 2, self.side(size)) for x in (width / 4, 3 * width / 4)]
