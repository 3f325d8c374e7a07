"""LLaVA-NeXT: the whole picture and its crops, laid side by side with a newline after each row.

Paper: https://llava-vl.github.io/blog/2024-01-30-llava-next/.
"""

from typing import Any, ClassVar

from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llava_next.configuration_llava_next import LlavaNextConfig
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_next.modeling_llava_next import LlavaNextForConditionalGeneration
from transformers.models.mistral.configuration_mistral import MistralConfig

from disp_engine.models.autoregressive.chat import ChatFormat
from disp_engine.models.autoregressive.config import ConfigKinds
from disp_engine.models.autoregressive.crops import CroppedModel
from disp_engine.models.autoregressive.pictures import check_tower

VICUNA = ChatFormat(
    opening="A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. ",
    user="USER: {} ",
    header="ASSISTANT:",
    answer=" {}",
    closing="</s>",
)
MISTRAL = ChatFormat(user="[INST] {} [/INST]", header="", answer=" {}", closing="</s>")


class LlavaNext(CroppedModel):
    """The adapter of folders like llava-hf/llava-v1.6-mistral-7b-hf."""

    library_class: ClassVar[Any] = LlavaNextForConditionalGeneration
    processor_class: ClassVar[Any] = LlavaNextImageProcessorPil
    kinds: ClassVar[ConfigKinds] = ConfigKinds(
        LlavaNextConfig,
        {"llama": LlamaConfig, "mistral": MistralConfig},
        {"clip_vision_model": CLIPVisionConfig},
    )

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse layers and tokens of the tower that are not supported."""
        check_tower(config)

    @classmethod
    def chat_format(cls, config: Any) -> ChatFormat:
        """The turns of the language model that the checkpoint was made of."""
        return MISTRAL if config.text_config.model_type == "mistral" else VICUNA

    def packing(self) -> dict[str, Any]:
        """Which of the tower's tokens are used."""
        return {"vision_feature_select_strategy": self.config.vision_feature_select_strategy}
