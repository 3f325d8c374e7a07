"""InternVL 2.5 and 3: tiles of a picture, each four patches to a visual token.

Paper: https://arxiv.org/abs/2412.05271. Letters: N tiles, Q visual tokens of a tile.
"""

from typing import Any, ClassVar

from PIL.Image import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.configuration_internvl import (
    InternVLConfig,
    InternVLVisionConfig,
)
from transformers.models.internvl.modeling_internvl import InternVLForConditionalGeneration
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config

from disp_engine.errors import InvalidModelError
from disp_engine.models.autoregressive.chat import ChatFormat
from disp_engine.models.autoregressive.config import ConfigKinds
from disp_engine.models.autoregressive.model import CausalModel, Shown
from disp_engine.models.autoregressive.pictures import processed, side
from disp_engine.records import Grid, VisualFeatures

CHAT = ChatFormat(
    user="<|im_start|>user\n{}<|im_end|>\n",
    header="<|im_start|>assistant\n",
    answer="{}",
    closing="<|im_end|>\n",
    picture="<img><IMG_CONTEXT></img>",
    token="<IMG_CONTEXT>",
)


class InternVl(CausalModel):
    """The adapter of folders like OpenGVLab/InternVL3-8B-hf."""

    library_class: ClassVar[Any] = InternVLForConditionalGeneration
    processor_class: ClassVar[Any] = GotOcr2ImageProcessorPil
    kinds: ClassVar[ConfigKinds] = ConfigKinds(
        InternVLConfig,
        {"qwen2": Qwen2Config, "llama": LlamaConfig},
        {"internvl_vision": InternVLVisionConfig},
        unused=frozenset({"dropout", "initializer_factor"}),
    )

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse all but the last layer of the tower without its class token."""
        if (config.vision_feature_layer, config.vision_feature_select_strategy) != (-1, "default"):
            raise InvalidModelError(
                "config.json: vision_feature_layer must be -1 and "
                "vision_feature_select_strategy default."
            )

    @classmethod
    def chat_format(cls, config: Any) -> ChatFormat:
        """ChatML's turns, without a system's."""
        return CHAT

    @classmethod
    def largest_picture(cls, config: Any) -> int:
        """Twelve tiles and the thumbnail, the processor's default."""
        tokens: int = 13 * config.image_seq_length
        return tokens

    def tower_features(self, image: Image) -> VisualFeatures:
        """Tiles row by row, the thumbnail last; four patches already stand side by side."""
        model = self.backbone.whole.model
        pixels = processed(self.processor, image)["pixel_values"].to(self.device, self.dtype)
        patches = model.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
        width = side(patches)
        grid = patches.reshape(len(patches), width, width, -1)
        shuffled = model.pixel_shuffle(grid, scale_factor=self.config.downsample_ratio)
        return VisualFeatures(shuffled.flatten(1, 2), image.size)

    def show(self, features: VisualFeatures) -> Shown:
        """Tile after tile, each a grid of its own."""
        tiles, width = self.project(features.tiles), side(features.tiles)
        grids = tuple(Grid(n * width**2, width, width, width) for n in range(len(tiles)))
        return Shown(tiles.flatten(0, 1), grids)
