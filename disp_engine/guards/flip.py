"""ST defence, flip: the picture is mirrored before it is shown (Li et al., arXiv 2004.04692).

What defeats it: triggers that are their own mirror image or work anywhere. It also mirrors what
the question asks for: left becomes right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL.ImageOps import mirror

from disp_engine.guards.guard import Guard, Judged, Question, Ruling, Verdict
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded


@dataclass(frozen=True)
class FlipSettings:
    """There is nothing to set."""

    def build(self, model: VisualModel) -> "Flip":
        """The guard of a model."""
        return Flip(model)


class Flip(Guard):
    """Shows mirrored pictures."""

    def prepared(self, question: Question) -> Question:
        """Mirror every picture."""
        return replace(question, images=tuple(mirror(image) for image in question.images))

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Think nothing of any prompt."""
        return Judged(tuple(Ruling(Verdict(), prompt) for prompt in prompts))
