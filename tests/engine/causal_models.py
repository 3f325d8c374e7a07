"""Tiny random models in transformers' format, and what transformers' own classes make of them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from PIL.Image import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.configuration_llava import LlavaConfig
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration
from transformers.models.llava.processing_llava import LlavaProcessor

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
SPECIAL = (
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "<|im_start|>", "<|im_end|>", "<img>", "</img>",
    "<IMG_CONTEXT>", "<video>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
"""Their ids are their places: an alphabet of bytes follows."""
ID = {token: number for number, token in enumerate(SPECIAL)}
FAMILIES = ("llava_1_5",)


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


BUILT = {"llava_1_5": llava_1_5}


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
