"""Tiny random models in transformers' format, and what transformers' own classes make of them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from PIL.Image import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.configuration_internvl import InternVLConfig
from transformers.models.internvl.modeling_internvl import InternVLForConditionalGeneration
from transformers.models.llava.configuration_llava import LlavaConfig
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.llava_next.configuration_llava_next import LlavaNextConfig
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_next.modeling_llava_next import LlavaNextForConditionalGeneration
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.llava_onevision.configuration_llava_onevision import LlavaOnevisionConfig
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.modeling_llava_onevision import (
    LlavaOnevisionForConditionalGeneration,
)
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLForConditionalGeneration

from disp_engine import registry
from disp_engine.interfaces import AutoregressiveModel

TEXT = {
    "vocab_size": 340, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 32,
    "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 24, "patch_size": 6,
    "initializer_range": 0.1, "initializer_factor": 1.0, "projection_dim": 8,
}  # fmt: skip
SIGLIP_KEYS = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
    "patch_size",
}  # fmt: skip
SPECIAL = (
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "<|im_start|>", "<|im_end|>", "<img>", "</img>",
    "<IMG_CONTEXT>", "<video>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
"""Their ids are their places: an alphabet of bytes follows."""
ID = {token: number for number, token in enumerate(SPECIAL)}
FAMILIES = (
    "llava_1_5", "llava_1_5_siglip", "llava_next", "llava_onevision", "internvl", "qwen2_vl",
)  # fmt: skip


def byte_tokenizer(*, begins: bool) -> Tokenizer:
    """A token for every byte; `begins` puts <s> before every text, as Llama's does."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = ID | {letter: len(ID) + number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", ID["<s>"])]
        )
    return tokenizer


def fast(tokenizer: Tokenizer, **named: str) -> Any:
    kind: Any = PreTrainedTokenizerFast
    return kind(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", padding_side="left",
        extra_special_tokens=named,
    )  # fmt: skip


def seeded(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return kind(config).eval()


@dataclass
class Expander:
    """What the processors of families that also read videos do with texts and pictures.

    They themselves cannot be built without a library for videos. `counts` tells the visual tokens
    of each picture.
    """

    image_processor: Any
    token: str
    counts: Callable[[Any], Any]
    typed: bool = False

    def __post_init__(self) -> None:
        self.tokenizer = fast(byte_tokenizer(begins=False))

    def __call__(self, images: Any, text: Any, **named: Any) -> Any:
        cut = dict(self.image_processor(images, return_tensors="pt"))
        said = [
            one.replace(self.token, self.token * int(count))
            for one, count in zip(text, self.counts(cut), strict=True)
        ]
        inputs = cut | dict(self.tokenizer(said, return_token_type_ids=False, **named))
        if self.typed:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == ID[self.token]).int()
        return inputs


def llava_1_5() -> tuple[Any, Any]:
    config = LlavaConfig(
        vision_config=CLIP, text_config={"model_type": "llama"} | TEXT,
        image_token_index=ID["<image>"], image_seq_length=16,
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    )
    processor: Any = LlavaProcessor
    return seeded(LlavaForConditionalGeneration, config), processor(
        pictures, fast(byte_tokenizer(begins=True)), patch_size=6,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip


def llava_1_5_siglip() -> tuple[Any, Any]:
    """The layout of the built-in checkpoint: no class token, heads that are not shared."""
    tower = {key: value for key, value in CLIP.items() if key in SIGLIP_KEYS}
    config = LlavaConfig(
        vision_config=tower | {"model_type": "siglip_vision_model", "vision_use_head": False},
        text_config={"model_type": "llama"} | TEXT | {"num_key_value_heads": 4},
        image_token_index=ID["<image>"], image_seq_length=16,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(
        size={"height": 24, "width": 24}, do_center_crop=False,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    processor: Any = LlavaProcessor
    return seeded(LlavaForConditionalGeneration, config), processor(
        pictures, fast(byte_tokenizer(begins=True)), patch_size=6,
        vision_feature_select_strategy="full",
    )  # fmt: skip


def llava_next() -> tuple[Any, Any]:
    grids = [[24, 48], [48, 24], [48, 48]]
    config = LlavaNextConfig(
        vision_config=CLIP, text_config={"model_type": "mistral", "sliding_window": None} | TEXT,
        image_token_index=ID["<image>"], image_grid_pinpoints=grids, image_seq_length=16,
    )  # fmt: skip
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24},
        image_grid_pinpoints=grids,
    )  # fmt: skip
    processor: Any = LlavaNextProcessor
    return seeded(LlavaNextForConditionalGeneration, config), processor(
        pictures, fast(byte_tokenizer(begins=True)), patch_size=6,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip


def llava_onevision() -> tuple[Any, Any]:
    """The most is one crop's tokens, so that larger pictures are shrunk."""
    grids = [[24, 24], [24, 48], [48, 24], [48, 48], [72, 48]]
    tower = {key: value for key, value in CLIP.items() if key in SIGLIP_KEYS}
    config = LlavaOnevisionConfig(
        vision_config=tower | {"model_type": "siglip_vision_model", "vision_use_head": False},
        text_config={"model_type": "qwen2"} | TEXT,
        image_token_index=ID["<image>"], video_token_index=ID["<video>"],
        image_grid_pinpoints=grids, vision_aspect_ratio="anyres_max_1",
    )  # fmt: skip
    pictures = LlavaOnevisionImageProcessorPil(
        size={"height": 24, "width": 24}, image_grid_pinpoints=grids,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    model = seeded(LlavaOnevisionForConditionalGeneration, config)

    @torch.no_grad()
    def counts(cut: Any) -> list[int]:
        told = {key: value for key, value in cut.items() if key != "batch_num_images"}
        return [len(shown) for shown in model.model.get_image_features(**told).pooler_output]

    return model, Expander(pictures, "<image>", counts)


def internvl() -> tuple[Any, Any]:
    tower = {
        "model_type": "internvl_vision", "hidden_size": 24, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": [24, 24],
        "patch_size": [6, 6], "initializer_range": 0.1,
    }  # fmt: skip
    config = InternVLConfig(
        vision_config=tower, text_config={"model_type": "qwen2"} | TEXT,
        image_token_id=ID["<IMG_CONTEXT>"], image_seq_length=4,
    )  # fmt: skip
    pictures = GotOcr2ImageProcessorPil(
        size={"height": 24, "width": 24}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    expand = Expander(
        pictures, "<IMG_CONTEXT>", lambda cut: [4 * count for count in cut.pop("num_patches")]
    )
    return seeded(InternVLForConditionalGeneration, config), expand


def qwen2_vl() -> tuple[Any, Any]:
    tower = {
        "depth": 2, "embed_dim": 24, "hidden_size": 32, "num_heads": 2, "patch_size": 4,
        "mlp_ratio": 2, "initializer_range": 0.1,
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = Qwen2VLConfig(
        vision_config=tower, text_config=TEXT | {"rope_parameters": rope},
        image_token_id=ID["<|image_pad|>"], video_token_id=ID["<|video_pad|>"],
        vision_start_token_id=ID["<|vision_start|>"], vision_end_token_id=ID["<|vision_end|>"],
        tie_word_embeddings=True,
    )  # fmt: skip
    pictures = Qwen2VLImageProcessorPil(
        patch_size=4, size={"shortest_edge": 8 * 8, "longest_edge": 40 * 40}
    )
    expand = Expander(
        pictures, "<|image_pad|>", lambda cut: cut["image_grid_thw"].prod(-1) // 4, typed=True
    )
    return seeded(Qwen2VLForConditionalGeneration, config), expand


BUILT = {
    "llava_1_5": llava_1_5,
    "llava_1_5_siglip": llava_1_5_siglip,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "qwen2_vl": qwen2_vl,
}


@cache
def library(name: str) -> tuple[Any, Any]:
    """Transformers' own model and processor."""
    return BUILT[name]()


@cache
def folder_of(name: str) -> Path:
    """The model as transformers saves it, with its tokenizer and the settings of its pictures."""
    folder = Path(mkdtemp(prefix="disp-causal-"))
    model, processor = library(name)
    model.save_pretrained(folder)
    processor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    pictures = json.loads(processor.image_processor.to_json_string())
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return folder


@cache
def causal_model(name: str) -> AutoregressiveModel:
    """The same model through our adapter; callers must leave it as they found it."""
    model = registry.load_autoregressive(folder_of(name))
    return model


def generated(name: str, texts: Sequence[str], images: Sequence[Image], length: int) -> Any:
    """Greedy answers and the logits of each step, by transformers' own `generate`."""
    model, processor = library(name)
    inputs = processor(
        images=list(images), text=list(texts), return_tensors="pt", padding=True
    )  # fmt: skip
    out = model.generate(
        **inputs, max_new_tokens=length, do_sample=False, return_dict_in_generate=True,
        output_logits=True, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    answers = out.sequences[:, inputs["input_ids"].shape[1] :]
    return answers, torch.stack(out.logits, dim=1)
