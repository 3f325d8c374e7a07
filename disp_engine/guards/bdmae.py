"""BDMAE: find the trigger by what a masked autoencoder paints in its place (Sun et al.).

Paper: "Mask and Restore", arXiv 2303.15564. Under many random masks a ViT-MAE paints the hidden
tokens. A token is suspicious if the painted picture is unlike the true one there (1 - SSIM), and if
the answer is another one where the token was hidden; for answers in words the second score is
derived. Suspicious tokens are painted over for good. The authors refine the scores by masks that
follow the picture's topology; that is not done here.

What defeats it: triggers over the whole picture; tokens that the answer rests on change it as well.

Letters: N tokens of the autoencoder, R masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from PIL.Image import Image

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.guard import Guard, Judged, Question, Ruling, Verdict, embedded
from disp_engine.guards.inpainter import Inpainter
from disp_engine.guards.pictures import grey, shares, ssim_map
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded
from disp_engine.responses import plain_answers


@dataclass(frozen=True)
class BdmaeSettings:
    """A ViT-MAE's folder, masks for each picture, the weight of the picture's score, and the seed.

    Tokens that score above `threshold` (the authors begin with 0.6) are painted over; `length`
    bounds the answers that are compared.
    """

    mae: str
    masks: int = 20
    alpha: float = 0.5
    threshold: float = 0.6
    length: int = 32
    seed: int = 0

    def build(self, model: VisualModel) -> "Bdmae":
        """The guard of a model."""
        if self.masks < 1 or not (0 <= self.alpha <= 1 and 0 < self.threshold < 1):
            raise InvalidRequestError(
                "guard: masks must be positive, alpha in [0, 1], threshold between 0 and 1."
            )
        return Bdmae(model, Inpainter.from_folder(Path(self.mae), model.device), self)


class Bdmae(Guard):
    """Shows pictures whose suspicious tokens are painted over."""

    as_published: ClassVar[bool] = False

    def __init__(self, model: VisualModel, inpainter: Inpainter, settings: BdmaeSettings) -> None:
        super().__init__(model)
        self.inpainter, self.settings = inpainter, settings

    def prepared(self, question: Question) -> Question:
        """Paint over each picture's suspicious tokens."""
        found = question
        for number in range(len(question.images)):
            hidden = self.scores(found, number) > self.settings.threshold
            if hidden.any():
                found = _with(found, number, self._painted(found.images[number], hidden))
        return found

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Think nothing of any prompt."""
        return Judged(tuple(Ruling(Verdict(), prompt) for prompt in prompts))

    def scores(self, question: Question, number: int) -> Float[np.ndarray, " N"]:
        """How suspicious each token of a picture is, in [0, 1]."""
        image = question.images[number]
        masks = self.inpainter.masks(image, self.settings.masks, self.settings.seed)
        painted = [self._painted(image, mask) for mask in masks]
        weight = self.settings.alpha
        by_answer = self._answered_otherwise(question, number, masks, painted)
        return weight * self._unlike(image, masks, painted) + (1 - weight) * by_answer

    def _unlike(
        self, image: Image, masks: Bool[np.ndarray, "R N"], painted: Sequence[Image]
    ) -> Float[np.ndarray, " N"]:
        """1 - SSIM where a token was hidden, mean over masks."""
        true = grey(shares(image))
        lost = [
            self.inpainter.by_token(1 - ssim_map(true, grey(shares(other)))) for other in painted
        ]
        return _mean_where(masks, np.stack(lost).clip(0, 1))

    def _answered_otherwise(
        self,
        question: Question,
        number: int,
        masks: Bool[np.ndarray, "R N"],
        painted: Sequence[Image],
    ) -> Float[np.ndarray, " N"]:
        """How often another answer was given where a token was hidden."""
        asked = [question, *(_with(question, number, image) for image in painted)]
        plain, *others = self._answers(embedded(self.model, asked))
        changed = np.array([float(other != plain) for other in others])
        return _mean_where(masks, np.repeat(changed[:, None], masks.shape[1], axis=1))

    def _answers(self, prompts: Sequence[Embedded]) -> list[str]:
        answers = plain_answers(self.respondent, prompts, self.settings.length)
        return [self.model.text(ids) for ids in answers]

    def _painted(self, image: Image, hidden: Bool[np.ndarray, " N"]) -> Image:
        return self.inpainter.painted(image, hidden)


def _with(question: Question, number: int, image: Image) -> Question:
    images = list(question.images)
    images[number] = image
    return replace(question, images=tuple(images))


def _mean_where(
    masks: Bool[np.ndarray, "R N"], values: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, " N"]:
    """Each column's mean over the rows that hide it; 0 for one that is never hidden."""
    count = masks.sum(axis=0)
    found: np.ndarray = (masks * values).sum(axis=0) / np.maximum(count, 1)
    return found
