"""An unconditional diffusion model of pictures, for the guards that purify pictures by one.

A folder as diffusers' `DDPMPipeline` saves it: `unet/` and `scheduler/`, weights as safetensors.
Notation of Ho et al., arXiv 2006.11239: x_0 a picture in [-1, 1], x_t = sqrt(a_t) x_0 +
sqrt(1 - a_t) noise with a_t the cumulated alpha, t below the T steps of the training.

Letters: C channels, S side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL.Image import Image, Resampling, fromarray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.models.checkpoint import read_json

UNET, SCHEDULER = Path("unet"), Path("scheduler")
WEIGHTS = "diffusion_pytorch_model.safetensors"
Picture = Float[Tensor, "1 C S S"]


@dataclass(frozen=True)
class Denoiser:
    """The network, its schedule, and the side of the pictures that it was trained on."""

    unet: Any
    schedule: Any
    side: int

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device) -> "Denoiser":
        """Read a folder; nothing of it is run."""
        unet_kind, schedule_kind = _library()
        paths = (folder / UNET / "config.json", folder / SCHEDULER / "scheduler_config.json")
        try:
            unet = unet_kind.from_config(read_json(paths[0]))
            schedule = schedule_kind.from_config(read_json(paths[1]))
            unet.load_state_dict(load_file(folder / UNET / WEIGHTS))
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise InvalidModelError(f"ddpm: {folder.name}: {error}") from error
        if unet.config.in_channels != 3 or schedule.config.prediction_type != "epsilon":
            raise InvalidModelError(
                f"ddpm: {folder.name}: it must predict the noise of pictures in colour."
            )
        side = unet.config.sample_size
        if not isinstance(side, int):
            raise InvalidModelError(f"ddpm: {folder.name}: sample_size must be one number.")
        return cls(unet.eval().requires_grad_(False).to(device), schedule, side)

    @property
    def steps(self) -> int:
        """T."""
        count: int = self.schedule.config.num_train_timesteps
        return count

    def cumulated(self, t: int) -> float:
        """a_t."""
        return float(self.schedule.alphas_cumprod[t])

    def read(self, image: Image) -> Picture:
        """The picture as x_0, at the network's own size."""
        fitted = image.convert("RGB").resize((self.side, self.side), Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None]
        return (pixels.float() / 127.5 - 1).to(self.unet.device)

    def shown(self, x: Picture, like: Image) -> Image:
        """x_0 as a picture of the size of another."""
        pixels = ((x[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        return fromarray(pixels).resize(like.size, Resampling.BICUBIC)

    def noised(self, x: Picture, t: int, generator: torch.Generator) -> Picture:
        """x_t of x_0."""
        a = self.cumulated(t)
        return sqrt(a) * x + sqrt(1 - a) * self.draw(x, generator)

    def draw(self, x: Picture, generator: torch.Generator) -> Picture:
        """Noise of a picture's shape; it does not depend on the device."""
        return torch.randn(x.shape, generator=generator).to(x)

    @torch.no_grad()
    def noise(self, x: Picture, t: int) -> Picture:
        """What the network takes for the noise in x_t."""
        found: Tensor = self.unet(x, t).sample
        return found

    def guessed(self, x: Picture, t: int) -> Picture:
        """x_0 by the network, from x_t."""
        a = self.cumulated(t)
        return ((x - sqrt(1 - a) * self.noise(x, t)) / sqrt(a)).clamp(-1, 1)

    def before(
        self, x: Picture, guess: Picture, t: int, s: int, generator: torch.Generator
    ) -> Picture:
        """x_s of x_t and a guess of x_0, s < t: the posterior's draw (Eqs. 6, 7); x_0 at s = -1."""
        if s < 0:
            return guess
        a, b = self.cumulated(t), self.cumulated(s)
        beta = 1 - a / b
        mean = (sqrt(b) * beta * guess + sqrt(a / b) * (1 - b) * x) / (1 - a)
        return mean + sqrt(beta * (1 - b) / (1 - a)) * self.draw(x, generator)

    def denoised(self, x: Picture, times: Sequence[int], generator: torch.Generator) -> Picture:
        """x_0 from x_t along falling times, of which the first is t."""
        for t, s in pairs(times):
            x = self.before(x, self.guessed(x, t), t, s, generator)
        return x


def times(last: int, steps: int | None) -> list[int]:
    """Falling times from `last` to 0, all of them or `steps` evenly spaced ones."""
    if steps is None or steps > last:
        return list(range(last, -1, -1))
    spaced: Int[np.ndarray, " N"] = np.linspace(last, 0, steps).round().astype(int)
    return list(dict.fromkeys(spaced.tolist()))


def pairs(falling: Sequence[int]) -> list[tuple[int, int]]:
    """Each time with the one that follows it, the last one with -1."""
    return list(zip(falling, [*falling[1:], -1], strict=True))


def _library() -> tuple[Any, Any]:
    try:
        from diffusers.models.unets.unet_2d import UNet2DModel
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    except ImportError as error:
        raise InvalidRequestError(
            "guard: diffusers is not installed; install the extra `disp[purifiers]`."
        ) from error
    return UNet2DModel, DDPMScheduler
