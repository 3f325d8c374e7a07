"""ZIP: degrade the picture and restore it by a diffusion model (Shi et al., NeurIPS 2023).

Two degradations A, a blur by averaging s x s pixels and a loss of colour, leave y = A x. From pure
noise the model draws a picture; at each step its guess of x_0 is put in agreement with what y
tells, A+ y + (1 - A+ A) x_0, the mean over both degradations. In the last steps, where the
cumulated alpha is above `threshold`, the model goes on alone. The authors weigh the two parts with
a power of alpha there: derived in this point.

What defeats it: triggers that outlast the degradation; detail that the question asks for does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch.nn.functional import avg_pool2d, interpolate

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.denoiser import Denoiser, Picture, pairs, times
from disp_engine.guards.purifier import Purifier
from disp_engine.interfaces import VisualModel


@dataclass(frozen=True)
class ZipSettings:
    """A diffusion model's folder, steps of the drawing, the blur's scale, and the seed.

    20 steps and scales 2 to 4 are the authors', as is the threshold's range of 0.98 to 1.
    """

    ddpm: str
    steps: int = 20
    scale: int = 2
    threshold: float = 0.98
    seed: int = 0

    def build(self, model: VisualModel) -> "Zip":
        """The guard of a model."""
        denoiser = Denoiser.from_folder(Path(self.ddpm), model.device)
        if self.steps < 1 or self.scale < 1 or denoiser.side % self.scale:
            raise InvalidRequestError(
                f"guard: steps must be positive, scale divide {denoiser.side}."
            )
        return Zip(model, denoiser, self)


class Zip(Purifier):
    """Shows pictures that were restored."""

    as_published: ClassVar[bool] = False

    def __init__(self, model: VisualModel, denoiser: Denoiser, settings: ZipSettings) -> None:
        super().__init__(model, denoiser, settings.seed)
        self.settings = settings

    def purified(self, x: Picture, generator: torch.Generator) -> Picture:
        """Draw a picture that agrees with what the degradations leave."""
        parts: list[Callable[[Picture], Picture]] = [self._blurred, grey]
        told = [part(x) for part in parts]
        now = self.denoiser.draw(x, generator)
        for t, s in pairs(times(self.denoiser.steps - 1, self.settings.steps)):
            guess = self.denoiser.guessed(now, t)
            if self.denoiser.cumulated(t) <= self.settings.threshold:
                agreeing = [y + guess - part(guess) for y, part in zip(told, parts, strict=True)]
                guess = torch.stack(agreeing).mean(dim=0)
            now = self.denoiser.before(now, guess, t, s, generator)
        return now

    def _blurred(self, x: Picture) -> Picture:
        """A+ A x of the blur: each block's mean in all of its pixels."""
        scale = self.settings.scale
        return interpolate(avg_pool2d(x, scale), scale_factor=scale, mode="nearest")


def grey(x: Picture) -> Picture:
    """A+ A x of the loss of colour: the channels' mean in each channel."""
    return x.mean(dim=1, keepdim=True).expand_as(x)
