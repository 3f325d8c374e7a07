"""A byte-level BPE tokenizer over the built-in world, with LLaDA's special tokens."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from disp_engine.builtin.instructions import KINDS
from disp_engine.builtin.world import draw_scene
from disp_engine.models.llada_v.prompt import SYSTEM

SPECIAL = (
    "<|startoftext|>", "<|endoftext|>", "[CLS]", "<|reserved_token_1|>", "<|reserved_token_2|>",
    "<|reserved_token_251|>", "<|mdm_mask|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + (m['content'] | trim)"
    " + '<|eot_id|>' }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)


def _corpus(scenes: int = 1500) -> Iterator[str]:
    rng = np.random.default_rng(0)
    for _ in range(scenes):
        scene = draw_scene(rng)
        for kind in KINDS:
            task = kind(scene, rng)
            yield from (task.prompt, task.response, task.command, task.keyword)
            yield from ("system", "user", "assistant")


def build_tokenizer() -> Tokenizer:
    """Learn one token for every word of the world; any other text falls back to bytes.

    The system sentence, the same in every prompt, is one entry of the vocabulary: it would
    otherwise be a quarter of all positions.
    """
    tokenizer = learn_words()
    tokenizer.add_tokens([AddedToken(SYSTEM, normalized=False)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return tokenizer


def learn_words() -> Tokenizer:
    """The words of the world, without special tokens of any family."""
    return Tokenizer.from_str(_learnt())


@cache
def _learnt() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    text: str = tokenizer.to_str()
    return text


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that is there."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the three files of the official layout."""
    named = {
        "bos_token": "<|startoftext|>",
        "cls_token": "[CLS]",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=1))
    settings = named | {
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "padding_side": "right",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
