"""Gaussian blur of the picture before it is shown.

What defeats it: triggers that survive a blur, as dark patches do; attention is hijacked by tokens,
not by sharp edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL.ImageFilter import GaussianBlur

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import Guard, Judged, Question, Ruling, Verdict
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded


@dataclass(frozen=True)
class BlurSettings:
    """Standard deviation as a share of the shorter side; papers that compare with it give none."""

    share: float = 0.02

    def build(self, model: VisualModel) -> "Blur":
        """The guard of a model."""
        if not 0 < self.share < 1:
            raise InvalidRequestError("guard: share must lie between 0 and 1.")
        return Blur(model, self)


class Blur(Guard):
    """Shows blurred pictures."""

    def __init__(self, model: VisualModel, settings: BlurSettings) -> None:
        super().__init__(model)
        self.settings = settings

    def prepared(self, question: Question) -> Question:
        """Blur every picture."""
        images = [
            image.filter(GaussianBlur(self.settings.share * min(image.size)))
            for image in question.images
        ]
        return replace(question, images=tuple(images))

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Think nothing of any prompt."""
        return Judged(tuple(Ruling(Verdict(), prompt) for prompt in prompts))
