"""Tiny models for tests of the engine, loaded as any other checkpoint."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from disp_engine import registry
from disp_engine.interfaces import HidingModel
from disp_engine.models.llada_v import LladaV

FIXTURE = Path(__file__).parents[1] / "fixtures" / "llada_v" / "anyres"
MASKED = {"llada_v": FIXTURE, "lavida": FIXTURE.parents[1] / "lavida" / "anyres"}
"""Random masked diffusion models by their families."""
GEMMA = Path(__file__).parents[1] / "fixtures" / "diffusion_gemma" / "native"
_GEMMA_WORDS = {
    "<pad>": 0, "<eos>": 1, "<bos>": 2, "<|turn>": 300, "<turn|>": 301,
    "<|image|>": 310, "<|image>": 311, "<image|>": 312,
}  # fmt: skip


@cache
def random_llada_v() -> LladaV:
    """A random LLaDA-V of three narrow layers; callers must leave it as they found it."""
    model = registry.load_model(FIXTURE)
    assert isinstance(model, LladaV)
    return model


@cache
def masked_model(family: str) -> HidingModel:
    """A random model of a family; callers must leave it as they found it."""
    model = registry.load_model(MASKED[family])
    assert isinstance(model, HidingModel)
    return model


def picture(seed: int = 0, size: tuple[int, int] = (60, 50)) -> Image.Image:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def gemma_folder(folder: Path) -> Path:
    """The recorded DiffusionGemma with what it lacks to read texts: a byte-level tokenizer.

    Pictures take at most 70 visual tokens, and the end of a turn ends an answer.
    """
    shutil.copytree(GEMMA, folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: 3 + number for number, letter in enumerate(letters)} | _GEMMA_WORDS
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in _GEMMA_WORDS])
    tokenizer.save(str(folder / "tokenizer.json"))
    pictures = {"image_processor": {"max_soft_tokens": 70}}
    (folder / "processor_config.json").write_text(json.dumps(pictures))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 301]}))
    return folder
