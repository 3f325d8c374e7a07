"""Pictures as numbers, for the triggers that change every pixel."""

import numpy as np
from jaxtyping import Float
from PIL import Image


def to_pixels(image: Image.Image) -> Float[np.ndarray, "H W 3"]:
    """A picture as float64, 0 to 255."""
    return np.asarray(image, dtype=np.float64)


def to_image(pixels: Float[np.ndarray, "H W 3"]) -> Image.Image:
    """Round and clip to a picture."""
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
