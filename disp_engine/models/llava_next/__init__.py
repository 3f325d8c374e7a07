"""LLaVA-NeXT: the whole picture and its crops, laid side by side with a newline after each row.

Paper: https://llava-vl.github.io/blog/2024-01-30-llava-next/. Letters: N tiles, P tokens of a tile,
Q all tokens of a picture, newlines among them.
"""

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llava_next.configuration_llava_next import LlavaNextConfig
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_next.modeling_llava_next import (
    LlavaNextForConditionalGeneration,
    unpad_image,
)
from transformers.models.mistral.configuration_mistral import MistralConfig

from disp_engine.errors import InvalidModelError
from disp_engine.models.autoregressive.backbone import Backbone
from disp_engine.models.autoregressive.chat import ChatFormat, Prompter
from disp_engine.models.autoregressive.config import ConfigKinds, Facts
from disp_engine.models.autoregressive.model import CausalModel, Shown
from disp_engine.models.autoregressive.pictures import (
    check_tower,
    processed,
    side,
    tower_tokens,
)
from disp_engine.records import Grid, VisualFeatures

VICUNA = ChatFormat(
    opening="A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. ",
    user="USER: {} ",
    header="ASSISTANT:",
    answer=" {}",
    closing="</s>",
)
MISTRAL = ChatFormat(user="[INST] {} [/INST]", header="", answer=" {}", closing="</s>")


class LlavaNext(CausalModel):
    """The adapter of folders like llava-hf/llava-v1.6-mistral-7b-hf."""

    library_class: ClassVar[Any] = LlavaNextForConditionalGeneration
    processor_class: ClassVar[Any] = LlavaNextImageProcessorPil
    kinds: ClassVar[ConfigKinds] = ConfigKinds(
        LlavaNextConfig,
        {"llama": LlamaConfig, "mistral": MistralConfig},
        {"clip_vision_model": CLIPVisionConfig},
    )

    def __init__(self, facts: Facts, backbone: Backbone, prompter: Prompter, revision: str) -> None:
        super().__init__(facts, backbone, prompter, revision)
        if self.processor.image_grid_pinpoints != self.config.image_grid_pinpoints:
            raise InvalidModelError(
                "preprocessor_config.json: image_grid_pinpoints are not those of config.json."
            )

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse layers and tokens of the tower that are not supported."""
        check_tower(config)

    @classmethod
    def chat_format(cls, config: Any) -> ChatFormat:
        """The turns of the language model that the checkpoint was made of."""
        return MISTRAL if config.text_config.model_type == "mistral" else VICUNA

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
        tokens = self.packed(self.project(features.tiles), (height, width))
        return Shown(tokens, (whole, *self._crops((height, width), across)))

    def packed(self, tiles: Float[Tensor, "N P D"], size: tuple[int, int]) -> Float[Tensor, "Q D"]:
        """The tiles of a picture of `size` (height, width) in the order in which they are read."""
        model = self.backbone.whole.model
        (tokens,), _ = model.pack_image_features(
            [tiles],
            [size],
            vision_feature_select_strategy=self.config.vision_feature_select_strategy,
            image_newline=model.image_newline,
        )
        laid: Tensor = tokens
        return laid

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
