"""The sizes of the tiny DiffusionGemma, its words and its files, in the official layout."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer

from disp_engine.builtin.recipe.gemma_tower import POOLED, SIDE
from disp_engine.builtin.recipe.tokenizer import id_of, learn_words
from disp_engine.models.diffusion_gemma import DiffusionGemma, shapes
from disp_engine.models.diffusion_gemma.prompt import BOS, CLOSE, EOS, OPEN, Prompter

PAD = "<pad>"
PICTURE = {"image_token_id": "<|image|>", "boi_token_id": "<|image>", "eoi_token_id": "<image|>"}
SPECIAL = (PAD, EOS, BOS, OPEN, CLOSE, *PICTURE.values())
CANVAS = 32
"""Tokens of a canvas; no answer of the world is longer."""
STEPS = 24
"""Denoising steps of a canvas at most."""
SOFT_TOKENS = 70
"""The smallest budget the family knows; the world's pictures take 64 of it, at their own size."""

TEXT: dict[str, Any] = {
    "model_type": "diffusion_gemma_text",
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "num_experts": 4,
    "top_k_experts": 2,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_global_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 64,
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    "sliding_window": 256,
    "max_position_embeddings": 2048,
    "initializer_range": 0.05,
    "use_bidirectional_attention": "vision",
    "tie_word_embeddings": True,
}
VISION: dict[str, Any] = {
    "model_type": "gemma4_vision",
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 24,
    "patch_size": SIDE,
    "pooling_kernel_size": POOLED,
    "position_embedding_size": 64,
    "initializer_range": 0.05,
}


class Chat(Prompter):
    """Gemma's chat as a teacher needs it."""

    @property
    def pad(self) -> int:
        """The id of padding, which is no target here."""
        return id_of(self.tokenizer, PAD)


def build_chat() -> Chat:
    """The world's words, the name of the model's turn, and Gemma's special tokens."""
    tokenizer = learn_words()
    tokenizer.add_tokens([AddedToken("model", normalized=False)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return Chat(tokenizer)


def config_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """What `config.json` holds."""
    named = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    text = {key: id_of(tokenizer, token) for key, token in named.items()}
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": "diffusion_gemma",
        "canvas_length": CANVAS,
        "dtype": "float32",
        "tie_word_embeddings": True,
        "initializer_range": TEXT["initializer_range"],
        **{key: id_of(tokenizer, token) for key, token in PICTURE.items()},
        "text_config": TEXT | text | {"vocab_size": tokenizer.get_vocab_size()},
        "vision_config": VISION,
    }


def write_configs(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer and the three configs."""
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = [id_of(tokenizer, EOS), id_of(tokenizer, CLOSE)]
    files = {
        "config.json": config_of(tokenizer),
        "generation_config.json": {"eos_token_id": ends, "max_denoising_steps": STEPS},
        "processor_config.json": {"image_processor": {"max_soft_tokens": SOFT_TOKENS}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, sort_keys=True))


def write_weights(folder: Path, model: DiffusionGemma) -> None:
    """Write `model.safetensors` under the official names, without what is tied."""
    state = model.backbone.model.state_dict()
    tensors = {name: state[name].detach().contiguous() for name in shapes(model.config)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
