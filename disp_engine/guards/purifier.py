"""What guards that purify pictures by a diffusion model have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL.Image import Image

from disp_engine.guards.denoiser import Denoiser, Picture
from disp_engine.guards.guard import Guard, Judged, Question, Ruling, Verdict
from disp_engine.guards.pictures import generator_of
from disp_engine.interfaces import VisualModel
from disp_engine.records import Embedded


class Purifier(Guard):
    """Shows purified pictures; the same picture is purified alike."""

    def __init__(self, model: VisualModel, denoiser: Denoiser, seed: int) -> None:
        super().__init__(model)
        self.denoiser, self.seed = denoiser, seed

    @abstractmethod
    def purified(self, x: Picture, generator: torch.Generator) -> Picture:
        """A picture in [-1, 1] without what is not of the pictures' world."""

    def prepared(self, question: Question) -> Question:
        """Purify every picture."""
        return replace(question, images=tuple(self._shown(image) for image in question.images))

    def judge(self, prompts: Sequence[Embedded], length: int) -> Judged:
        """Think nothing of any prompt."""
        return Judged(tuple(Ruling(Verdict(), prompt) for prompt in prompts))

    def _shown(self, image: Image) -> Image:
        x = self.purified(self.denoiser.read(image), generator_of(image, self.seed))
        return self.denoiser.shown(x, image)
