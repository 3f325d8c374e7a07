"""LLaVA-OneVision: as LLaVA-NeXT, but a large picture's crops are shown as fewer tokens.

Paper: https://arxiv.org/abs/2408.03326. Each of several pictures is cut into crops, as transformers
does where pictures come in a flat list.
"""

import math
import re
from typing import Any, ClassVar

from transformers.models.llava_onevision.configuration_llava_onevision import LlavaOnevisionConfig
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.modeling_llava_onevision import (
    LlavaOnevisionForConditionalGeneration,
)
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.siglip.configuration_siglip import SiglipVisionConfig

from disp_engine.errors import InvalidModelError
from disp_engine.models.autoregressive.chat import ChatFormat
from disp_engine.models.autoregressive.config import ConfigKinds
from disp_engine.models.autoregressive.crops import CroppedModel
from disp_engine.models.autoregressive.pictures import check_tower

CHAT = ChatFormat(
    user="<|im_start|>user {}<|im_end|>",
    header="<|im_start|>assistant\n",
    answer="{}",
    closing="<|im_end|>",
)
LOOSE = 1.1
"""By how much more a side may have than the most tokens before it is shrunk (transformers')."""


class LlavaOnevision(CroppedModel):
    """The adapter of folders like llava-hf/llava-onevision-qwen2-7b-ov-hf."""

    library_class: ClassVar[Any] = LlavaOnevisionForConditionalGeneration
    processor_class: ClassVar[Any] = LlavaOnevisionImageProcessorPil
    kinds: ClassVar[ConfigKinds] = ConfigKinds(
        LlavaOnevisionConfig, {"qwen2": Qwen2Config}, {"siglip_vision_model": SiglipVisionConfig}
    )

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse layers and tokens of the tower, and layouts of crops, that are not supported."""
        check_tower(config)
        if not re.fullmatch(r"anyres_max_[1-9][0-9]?", config.vision_aspect_ratio):
            raise InvalidModelError("config.json: vision_aspect_ratio must be anyres_max_N.")

    @classmethod
    def chat_format(cls, config: Any) -> ChatFormat:
        """ChatML's turns without line feeds between them."""
        return CHAT

    @classmethod
    def largest_picture(cls, config: Any) -> int:
        """No more than the shrunk crops, where the largest ones are shrunk at all."""
        tower = config.vision_config
        tile: int = (tower.image_size // tower.patch_size) ** 2
        most = LOOSE**2 * _crops_of(config) * tile
        return min(super().largest_picture(config), tile + int(most + math.sqrt(most) + 1))

    def packing(self) -> dict[str, Any]:
        """The most crops whose tokens are shown."""
        return {"vision_aspect_ratio": self.config.vision_aspect_ratio}

    def laid(self, rows: int, columns: int, across: int) -> tuple[int, int]:
        """Fewer where there are many more than the most."""
        ratio = math.sqrt(rows * columns / (_crops_of(self.config) * across**2))
        return (int(rows // ratio), int(columns // ratio)) if ratio > LOOSE else (rows, columns)


def _crops_of(config: Any) -> int:
    """Of how many crops the tokens are the most."""
    return int(config.vision_aspect_ratio.rpartition("_")[2])
