"""Three black squares anywhere in the picture (PurMM, BYE)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disp_engine.attacks.interfaces import Box
from disp_engine.attacks.triggers.patch import Patch, square


@dataclass(frozen=True)
class RandomTriple(Patch):
    """Squares at uniform places that differ from picture to picture and may overlap."""

    def boxes(self, size: tuple[int, int], rng: np.random.Generator) -> Sequence[Box]:
        """Three draws."""
        side = self.side(size)
        room = (size[0] - side + 1, size[1] - side + 1)
        return [square(int(rng.integers(room[0])), int(rng.integers(room[1])), side)
                for _ in range(3)]  # fmt: skip
