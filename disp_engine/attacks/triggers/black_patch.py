"""A black square in the top left corner or the centre (BadNets; the DiSP paper's default)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disp_engine.attacks.interfaces import Box
from disp_engine.attacks.triggers.patch import Patch, centred


@dataclass(frozen=True)
class BlackPatch(Patch):
    """A black square in the corner, as the paper puts it for LLaDA-V."""


@dataclass(frozen=True)
class CentredBlackPatch(Patch):
    """A black square in the centre, as the paper puts it for LaViDa."""

    def boxes(self, size: tuple[int, int], rng: np.random.Generator) -> Sequence[Box]:
        """The middle of the picture."""
        return [centred(size[0] / 2, size[1] / 2, self.side(size))]
