"""An invisible, sample-specific trigger: hidden bits (ISSBA, Li et al., ICCV 2021)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from disp_engine.attacks.steganography.network import SIDE, Pair
from disp_engine.attacks.triggers.pixels import to_image, to_pixels
from disp_engine.errors import InvalidRequestError

OWN_ENCODER = Path(__file__).parents[1] / "steganography" / "small.safetensors"


@dataclass(frozen=True)
class Issba:
    """Add the residual by which a steganographic `encoder` hides `secret`.

    `encoder` is a safetensors file as `python -m disp_engine.attacks.steganography` writes it; by
    default the small one of this package. `secret` fills the encoder's bits from the left.
    """

    encoder: str = str(OWN_ENCODER)
    secret: str = "hi"  # noqa: S105  a message to be hidden in a picture

    def apply(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a marked copy."""
        pair = _load(self.encoder)
        small = to_pixels(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        picture = torch.from_numpy(small).float().permute(2, 0, 1)[None] / 255
        residual = pair.encoder(picture, self.bits()[None])
        large = functional.interpolate(
            residual, (image.height, image.width), mode="bilinear", align_corners=False
        )
        return to_image(to_pixels(image) + 255 * large[0].permute(1, 2, 0).double().numpy())

    def bits(self) -> torch.Tensor:
        """The secret's bits, zeros behind them."""
        wanted = _load(self.encoder).encoder.shape.bits
        given = np.unpackbits(np.frombuffer(self.secret.encode(), dtype=np.uint8))
        if len(given) > wanted:
            raise InvalidRequestError(f"issba: secret has {len(given)} bits of {wanted}.")
        return torch.from_numpy(np.pad(given, (0, wanted - len(given)))).float()


@cache
def _load(path: str) -> Pair:
    return Pair.from_file(Path(path))
