"""Pictures that are shown whole and in crops, laid side by side with a newline after each row.

Letters: N tiles, P tokens of a tile.
"""

import math
from abc import abstractmethod
from itertools import pairwise
from typing import Any

import torch
from PIL.Image import Image
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from disp_engine.errors import InvalidModelError
from disp_engine.models.autoregressive.backbone import Backbone
from disp_engine.models.autoregressive.chat import Prompter
from disp_engine.models.autoregressive.config import Facts
from disp_engine.models.autoregressive.model import CausalModel, Shown
from disp_engine.models.autoregressive.pictures import processed, side, tower_tokens
from disp_engine.records import Grid, VisualFeatures


class CroppedModel(CausalModel):
    """What adapters of such families have in common."""

    def __init__(self, facts: Facts, backbone: Backbone, prompter: Prompter, revision: str) -> None:
        super().__init__(facts, backbone, prompter, revision)
        if self.processor.image_grid_pinpoints != self.config.image_grid_pinpoints:
            raise InvalidModelError(
                "preprocessor_config.json: image_grid_pinpoints are not those of config.json."
            )

    @classmethod
    def largest_picture(cls, config: Any) -> int:
        """The whole picture, the most crops, and a newline for each row of theirs."""
        tower = config.vision_config
        width = tower.image_size // tower.patch_size
        high, wide = max(config.image_grid_pinpoints, key=lambda pair: pair[0] * pair[1])
        rows, columns = high // tower.patch_size, wide // tower.patch_size
        tokens: int = width**2 + rows * (columns + 1)
        return tokens

    def tower_features(self, image: Image) -> VisualFeatures:
        """The whole picture first, then its crops row by row."""
        pixels = processed(self.processor, image)["pixel_values"][0]
        return VisualFeatures(tower_tokens(self.backbone.whole, pixels), image.size)

    def show(self, features: VisualFeatures) -> Shown:
        """The whole picture, then the rows of the crops without the border that was padded."""
        width, height = features.size
        across = side(features.tiles)
        whole = Grid(0, across, across, across)
        model = self.backbone.whole.model
        (tokens,), _ = model.pack_image_features(
            [self.project(features.tiles)],
            [[height, width]],
            image_newline=model.image_newline,
            **self.packing(),
        )
        return Shown(tokens, (whole, *self._crops((height, width), across)))

    @abstractmethod
    def packing(self) -> dict[str, Any]:
        """What transformers' own packing is told besides."""

    def laid(self, rows: int, columns: int, across: int) -> tuple[int, int]:
        """As how many rows and columns the crops' tokens are shown; `across` are a crop's."""
        return rows, columns

    def _crops(self, size: tuple[int, int], across: int) -> list[Grid]:
        """What is left of each crop of `across` tokens a side; none reaches into another."""
        best = select_best_resolution(size, self.config.image_grid_pinpoints)
        pixels = self.config.vision_config.image_size
        high, wide = (length // pixels * across for length in best)
        unpadded: Any = unpad_image  # untyped in transformers
        left = unpadded(torch.arange(high * wide).reshape(1, high, wide), size)[0]
        shown = self.laid(left.shape[0], left.shape[1], across)
        rows = _parts(int(left[0, 0]) // wide, left.shape[0], across, shown[0])
        columns = _parts(int(left[0, 0]) % wide, left.shape[1], across, shown[1])
        stride = shown[1] + 1  # a newline ends each row
        return [
            Grid(across**2 + top * stride + begin, bottom - top, end - begin, stride)
            for top, bottom in rows
            for begin, end in columns
        ]


def _parts(cut: int, length: int, across: int, shown: int) -> list[tuple[int, int]]:
    """Intervals of [0, shown) that belong to one crop each, `cut` tokens of the first missing.

    Where `length` tokens are shown as fewer, each belongs to the crop in which its middle lies.
    """
    edges = [0, *range(across - cut % across, length, across), length]
    scaled = [math.ceil(edge * shown / length - 0.5) for edge in edges]
    return [(begin, end) for begin, end in pairwise(scaled) if begin < end]
