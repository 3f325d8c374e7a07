"""Pictures as guards compare and change them."""

import zlib

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from scipy.ndimage import gaussian_filter

from disp_engine.training.order import generator_for

STREAM = 300
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
"""SSIM's window and constants for values in [0, 1] (Wang et al., 2004)."""


def shares(image: Image) -> Float[np.ndarray, "H W 3"]:
    """A picture's pixels in [0, 1]."""
    found: np.ndarray = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    return found


def generator_of(image: Image, seed: int) -> torch.Generator:
    """Draws that a picture and a seed determine, so that the same picture is treated alike."""
    return generator_for(seed, zlib.crc32(image.tobytes()), STREAM)


def grey(pixels: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """Brightness: 0.30 red, 0.59 green, 0.11 blue."""
    found: np.ndarray = pixels @ np.array([0.30, 0.59, 0.11])
    return found


def ssim_map(
    first: Float[np.ndarray, "H W"], second: Float[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """Structural similarity of two grey pictures in [0, 1], round each pixel."""
    a, b = gaussian_filter(first, SIGMA), gaussian_filter(second, SIGMA)
    variance_a = gaussian_filter(first * first, SIGMA) - a * a
    variance_b = gaussian_filter(second * second, SIGMA) - b * b
    shared = gaussian_filter(first * second, SIGMA) - a * b
    found: np.ndarray = ((2 * a * b + C1) * (2 * shared + C2)) / (
        (a * a + b * b + C1) * (variance_a + variance_b + C2)
    )
    return found
