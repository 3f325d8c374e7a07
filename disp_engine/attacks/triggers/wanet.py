"""A smooth warp of the whole picture (WaNet, Nguyen and Tran, ICLR 2021)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from disp_engine.attacks.triggers.pixels import to_image, to_pixels


@dataclass(frozen=True)
class WaNet:
    """Move every pixel along a field of `grid` x `grid` random directions, enlarged smoothly.

    `displacement` is the field's mean absolute value as a share of the picture's side; the
    original (s = 0.5 on 32 pixels) has 1/128, on larger pictures stronger warps are usual.
    The field is drawn from `seed` and the same for every picture.
    """

    grid: int = 4
    displacement: float = 1 / 64
    seed: int = 0

    def apply(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a marked copy."""
        pixels = torch.from_numpy(to_pixels(image)).permute(2, 0, 1)[None]
        warped = functional.grid_sample(
            pixels, self._places(image.height, image.width)[None],
            padding_mode="border", align_corners=True,
        )  # fmt: skip
        return to_image(warped[0].permute(1, 2, 0).numpy())

    def _places(self, height: int, width: int) -> Float[Tensor, "H W 2"]:
        """Where each pixel comes from, in [-1, 1]."""
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.rand((1, 2, self.grid, self.grid), generator=generator, dtype=torch.float64)
        field = 2 * draws - 1
        field = functional.interpolate(
            field / field.abs().mean(), (height, width), mode="bicubic", align_corners=True
        )
        rows = torch.linspace(-1, 1, height, dtype=torch.float64)
        columns = torch.linspace(-1, 1, width, dtype=torch.float64)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        still = torch.stack([x, y], dim=-1)
        moved = still + 2 * self.displacement * field[0].permute(1, 2, 0)
        return moved.clamp(-1, 1)
