"""LLaVA-1.5: a CLIP or SigLIP tower, a two-layer projector and a causal language model.

Paper: https://arxiv.org/abs/2310.03744. Letters: N tiles (one), P visual tokens.
"""

from typing import Any, ClassVar

from PIL.Image import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llava.configuration_llava import LlavaConfig
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration

from disp_engine.models.autoregressive.chat import ChatFormat
from disp_engine.models.autoregressive.config import ConfigKinds
from disp_engine.models.autoregressive.model import CausalModel, Shown
from disp_engine.models.autoregressive.pictures import (
    TOWERS,
    check_tower,
    processed,
    side,
    tower_tokens,
)
from disp_engine.records import Grid, VisualFeatures

VICUNA = ChatFormat(user="USER: {} ", header="ASSISTANT:", answer=" {}", closing="</s>")


class Llava15(CausalModel):
    """The adapter of folders like llava-hf/llava-1.5-7b-hf."""

    library_class: ClassVar[Any] = LlavaForConditionalGeneration
    processor_class: ClassVar[Any] = CLIPImageProcessorPil
    kinds: ClassVar[ConfigKinds] = ConfigKinds(LlavaConfig, {"llama": LlamaConfig}, TOWERS)

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse layers and tokens of the tower that are not supported."""
        check_tower(config)

    @classmethod
    def chat_format(cls, config: Any) -> ChatFormat:
        """Vicuna's turns."""
        return VICUNA

    @classmethod
    def largest_picture(cls, config: Any) -> int:
        """The one tile's tokens."""
        tower = config.vision_config
        tokens: int = (tower.image_size // tower.patch_size) ** 2
        return tokens

    def tower_features(self, image: Image) -> VisualFeatures:
        """The picture as one tile."""
        pixels = processed(self.processor, image)["pixel_values"]
        return VisualFeatures(tower_tokens(self.backbone.whole, pixels), image.size)

    def show(self, features: VisualFeatures) -> Shown:
        """Row after row of the tile."""
        width = side(features.tiles)
        return Shown(self.project(features.tiles)[0], (Grid(0, width, width, width),))
