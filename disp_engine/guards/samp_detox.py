"""SampDetox: noise all a little, then what changed most once more (Yang et al., NeurIPS 2024).

First the whole picture is noised to t_1 and denoised. Where structure was lost, which the SSIM
tells pixel by pixel, a mark stood that is not of the pictures' world: each pixel is noised again to
t_2 = (1 - SSIM) t_1 and denoised. A pixel takes part from its own t_2 on; before that it is what
the first round left, noised as far as its neighbours are (how the authors denoise levels that
differ is not published: derived).

What defeats it: marks that are as smooth as the scene.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.denoiser import Denoiser, Picture, pairs, times
from disp_engine.guards.pictures import grey, ssim_map
from disp_engine.guards.purifier import Purifier
from disp_engine.interfaces import VisualModel


@dataclass(frozen=True)
class SampDetoxSettings:
    """A diffusion model's folder, the share of its steps in both rounds (120 of 1000), the seed.

    `steps` None denoises through each step, a number through so many in each round.
    """

    ddpm: str
    share: float = 0.12
    steps: int | None = None
    seed: int = 0

    def build(self, model: VisualModel) -> "SampDetox":
        """The guard of a model."""
        if not 0 < self.share < 1 or (self.steps is not None and self.steps < 1):
            raise InvalidRequestError("guard: share must lie between 0 and 1, steps be positive.")
        return SampDetox(model, Denoiser.from_folder(Path(self.ddpm), model.device), self)


class SampDetox(Purifier):
    """Shows pictures that were noised twice."""

    as_published: ClassVar[bool] = False

    def __init__(self, model: VisualModel, denoiser: Denoiser, settings: SampDetoxSettings) -> None:
        super().__init__(model, denoiser, settings.seed)
        self.settings = settings

    def purified(self, x: Picture, generator: torch.Generator) -> Picture:
        """Both rounds."""
        last = max(0, round(self.settings.share * self.denoiser.steps) - 1)
        falling = times(last, self.settings.steps)
        noised = self.denoiser.noised(x, last, generator)
        first = self.denoiser.denoised(noised, falling, generator)
        levels = last * (1 - rescaled(ssim_map(_grey(x), _grey(first))))
        return self._again(first, torch.from_numpy(levels).to(x), falling, generator)

    def _again(
        self,
        first: Picture,
        levels: Float[Tensor, "S S"],
        falling: list[int],
        generator: torch.Generator,
    ) -> Picture:
        """Denoise each pixel from its own level."""
        now = self.denoiser.noised(first, falling[0], generator)
        for t, s in pairs(falling):
            waiting = self.denoiser.noised(first, t, generator)
            now = torch.where(levels >= t, now, waiting)
            now = self.denoiser.before(now, self.denoiser.guessed(now, t), t, s, generator)
        return torch.where(levels > 0, now, first)


def rescaled(values: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "S S"]:
    """From 0 at the least to 1 at the largest; all 1 where they are alike."""
    low, high = float(values.min()), float(values.max())
    return np.ones_like(values) if high == low else (values - low) / (high - low)


def _grey(x: Picture) -> Float[np.ndarray, "S S"]:
    pixels: np.ndarray = ((x[0].permute(1, 2, 0).cpu().double() + 1) / 2).numpy()
    return grey(pixels)
