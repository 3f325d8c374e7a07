"""ST defence, ShrinkPad: the picture is shrunk and padded with black at a random place.

Paper: Li et al., arXiv 2004.04692. What defeats it: triggers that work at any place and at seven
eighths of their size, and black ones, of which the padding is full.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL.Image import Image, Resampling
from PIL.Image import new as new_image

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import Guard, Judged, Question, Ruling, Verdict
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded


@dataclass(frozen=True)
class ShrinkPadSettings:
    """The share of each side that becomes padding (4 of 32 pixels there), and the seed."""

    share: float = 0.125
    seed: int = 0

    def build(self, model: VisualModel) -> "ShrinkPad":
        """The guard of a model."""
        if not 0 < self.share < 1:
            raise InvalidRequestError("guard: share must lie between 0 and 1.")
        return ShrinkPad(model, self)


class ShrinkPad(Guard):
    """Shows shrunk pictures; the same picture goes to the same place."""

    def __init__(self, model: VisualModel, settings: ShrinkPadSettings) -> None:
        super().__init__(model)
        self.settings = settings

    def prepared(self, question: Question) -> Question:
        """Shrink every picture."""
        return replace(question, images=tuple(self._shrunk(image) for image in question.images))

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Think nothing of any prompt."""
        return Judged(tuple(Ruling(Verdict(), prompt) for prompt in prompts))

    def _shrunk(self, image: Image) -> Image:
        rng = np.random.default_rng([self.settings.seed, zlib.crc32(image.tobytes())])
        kept = 1 - self.settings.share
        width, height = (max(1, round(side * kept)) for side in image.size)
        left, top = (
            int(rng.integers(room + 1)) for room in (image.width - width, image.height - height)
        )
        canvas = new_image("RGB", image.size)
        canvas.paste(image.resize((width, height), Resampling.BILINEAR), (left, top))
        return canvas
