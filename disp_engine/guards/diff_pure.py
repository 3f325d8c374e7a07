"""DiffPure: noise the picture a little and denoise it (Nie et al., ICML 2022, arXiv 2205.07460).

What defeats it: triggers that outlast the noise, as dark patches do; the more noise, the more of
the picture is invented.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from disp_engine.errors import InvalidRequestError
from disp_engine.guards.denoiser import Denoiser, Picture, times
from disp_engine.guards.purifier import Purifier
from disp_engine.interfaces import VisualModel


@dataclass(frozen=True)
class DiffPureSettings:
    """A diffusion model's folder, the `share` of its steps that is noised, and the seed.

    The authors' share for large pictures is 0.15. `steps` None denoises through each of them.
    """

    ddpm: str
    share: float = 0.15
    steps: int | None = None
    seed: int = 0

    def build(self, model: VisualModel) -> "DiffPure":
        """The guard of a model."""
        if not 0 < self.share < 1 or (self.steps is not None and self.steps < 1):
            raise InvalidRequestError("guard: share must lie between 0 and 1, steps be positive.")
        return DiffPure(model, Denoiser.from_folder(Path(self.ddpm), model.device), self)


class DiffPure(Purifier):
    """Shows pictures that went through noise."""

    def __init__(self, model: VisualModel, denoiser: Denoiser, settings: DiffPureSettings) -> None:
        super().__init__(model, denoiser, settings.seed)
        self.settings = settings

    def purified(self, x: Picture, generator: torch.Generator) -> Picture:
        """There and back."""
        last = max(0, round(self.settings.share * self.denoiser.steps) - 1)
        noised = self.denoiser.noised(x, last, generator)
        return self.denoiser.denoised(noised, times(last, self.settings.steps), generator)
