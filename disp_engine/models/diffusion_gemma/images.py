"""Pictures to patches, as transformers' own processor cuts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from disp_engine.errors import InvalidModelError, SampleError
from disp_engine.models.diffusion_gemma.config import GemmaFolder


@dataclass(frozen=True)
class Patches:
    """N pictures as patches in [0, 1], padded to one number P; `positions` are (x, y) or -1.

    `soft_tokens` counts the visual tokens of each picture.
    """

    pixels: Float[Tensor, "N P C"]
    positions: Int[Tensor, "N P 2"]
    soft_tokens: tuple[int, ...]


class Patcher:
    """Scales pictures, aspect kept, to the patch budget and cuts them."""

    def __init__(self, folder: GemmaFolder) -> None:
        vision = folder.config.vision_config
        try:
            self.processor: Any = Gemma4ImageProcessorPil(
                patch_size=vision.patch_size,
                pooling_kernel_size=vision.pooling_kernel_size,
                max_soft_tokens=folder.soft_tokens,
            )
        except ValueError as error:
            raise InvalidModelError(f"processor_config.json: {error}") from error

    def __call__(self, images: Sequence[Image]) -> Patches:
        """Cut pictures into patches."""
        try:
            cut = self.processor([image.convert("RGB") for image in images], return_tensors="pt")
        except ValueError as error:
            raise SampleError(f"The picture cannot be cut into patches: {error}") from error
        counts = tuple(int(count) for count in cut["num_soft_tokens_per_image"])
        return Patches(cut["pixel_values"].float(), cut["image_position_ids"].long(), counts)
