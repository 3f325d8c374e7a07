"""STRIP by agreement of answers (after Gao et al., ACSAC 2019); its form for words is derived.

The picture is laid over clean ones. A trigger's answer survives that, a true one does not: the more
of the blended pictures are answered as the plain one, the more suspicious the question. It detects
and does not purify: the answer stays the model's own.

What defeats it: triggers that do not survive a blend; questions that every picture answers alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
from PIL.Image import Image, Resampling, blend

from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.errors import InvalidDatasetError, InvalidRequestError
from disp_engine.guards.guard import (
    Guard,
    Judged,
    Question,
    Ruling,
    Verdict,
    embedded,
)
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded
from disp_engine.responses import plain_answers

LEAST_ASKED, MOST_ASKED = 10, 100
"""Clean questions for the threshold; none shows a picture that is laid over them."""


@dataclass(frozen=True)
class StripSettings:
    """Clean LLaVA data, how many of its pictures, their share of a blend, and a false alarm rate.

    Of other clean questions, a hundred at most, `false_alarms` are flagged; `length` bounds their
    answers.
    """

    clean: str
    pictures: int = 10
    alpha: float = 0.5
    false_alarms: float = 0.1
    length: int = 32

    def build(self, model: VisualModel) -> "Strip":
        """The guard of a model, its threshold learnt from the clean questions."""
        if not (0 < self.alpha < 1 and 0 < self.false_alarms < 1 and self.pictures > 1):
            raise InvalidRequestError("guard: alpha, false_alarms in (0, 1); pictures above 1.")
        with TemporaryDirectory() as pool:
            questions = _questions(read_dataset(Path(self.clean), Path(pool)), self.pictures)
        laid, asked = questions[: self.pictures], questions[self.pictures :]
        strip = Strip(model, [one.images[0] for one in laid], self.alpha)
        found = [strip.agreement(question, self.length) for question in asked]
        strip.threshold = float(np.percentile(found, 100 * (1 - self.false_alarms)))
        return strip


class Strip(Guard):
    """Flags questions whose answer survives being laid over other pictures."""

    as_published: ClassVar[bool] = False

    def __init__(self, model: VisualModel, clean: Sequence[Image], alpha: float) -> None:
        super().__init__(model)
        self.clean, self.alpha = clean, alpha
        self.threshold = 1.0

    def rule(self, questions: Sequence[Question], length: int) -> Judged:
        """Ask each question as it is and with every blend of its pictures."""
        rulings = []
        for question in questions:
            score = self.agreement(question, length)
            (prompt,) = embedded(self.model, [question])
            rulings.append(Ruling(Verdict(score > self.threshold, score), prompt))
        return Judged(tuple(rulings))

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Without its pictures a question cannot be judged."""
        raise InvalidRequestError("guard: strip needs the question's pictures.")

    def agreement(self, question: Question, length: int) -> float:
        """Share of the blended pictures that are answered as the plain one."""
        blends = [
            replace(question, images=tuple(self._laid(image, over) for image in question.images))
            for over in self.clean
        ]
        prompts = embedded(self.model, [question, *blends])
        plain, *others = (
            self.model.text(ids) for ids in plain_answers(self.respondent, prompts, length)
        )
        return sum(other == plain for other in others) / len(others)

    def _laid(self, image: Image, over: Image) -> Image:
        other = over.resize(image.size, Resampling.BILINEAR)
        return blend(image.convert("RGB"), other.convert("RGB"), self.alpha)


def _questions(dataset: Dataset, pictures: int) -> list[Question]:
    """The first question of samples that show a picture: those laid over, then those asked."""
    usable = [sample for sample in dataset.samples if sample.images][: pictures + MOST_ASKED]
    if len(usable) < pictures + LEAST_ASKED:
        raise InvalidDatasetError(
            f"guard: strip needs {pictures + LEAST_ASKED} clean questions with a picture."
        )
    return [Question(one.turns[:1], (dataset.image(one.images[0]),)) for one in usable]
