"""The tiny checkpoints' sizes, written in the families' official layouts."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from disp_engine.builtin.recipe.pictures import PATCH
from disp_engine.builtin.world import SIZE
from disp_engine.models.llava.names import llada_name

ODD = SIZE + PATCH
"""Side of a picture of 9 x 9 patches: the real family pools an odd number of them, too, so that the
middle of a picture is the middle of a patch."""
VISION: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": PATCH,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
LLAVA = {
    "model_type": "llava_llada",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "grid",
    "mm_hidden_size": VISION["hidden_size"],
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "siglip-tiny",
    "tokenizer_model_max_length": 2048,
    "tokenizer_padding_side": "right",
    "torch_dtype": "float32",
}
LLADA_V = {
    "architectures": ["LlavaLLaDAModelLM"],
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "image_aspect_ratio": "pad",
}
LAVIDA = {
    "architectures": ["LlavaLladaForMaskedDiffusion"],
    "d_model": LLADA_V["hidden_size"],
    "mlp_hidden_size": LLADA_V["intermediate_size"],
    "n_layers": LLADA_V["num_hidden_layers"],
    "n_heads": LLADA_V["num_attention_heads"],
    "n_kv_heads": LLADA_V["num_key_value_heads"],
    "activation_type": "silu",
    "block_type": "llama",
    "layer_norm_type": "rms",
    "include_bias": False,
    "max_sequence_length": 2048,
    "rope": True,
    "rope_full_precision": True,
    "weight_tying": False,
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": [[ODD, ODD]],
    "mm_spatial_pool_mode": "bilinear",
}


@dataclass(frozen=True)
class Layout:
    """A family's `config.json` beside what is common, its key for V, its names of tensors.

    `image_size` is the side of what the tower sees; pictures of the world are resized to it.
    """

    config: Mapping[str, Any]
    vocabulary: str
    rename: Callable[[str], str]
    image_size: int = SIZE


LAYOUTS: Mapping[str, Layout] = {
    "llada_v": Layout(LLADA_V, "vocab_size", str),
    "lavida": Layout(LAVIDA, "embedding_size", llada_name, ODD),
}


def write_configs(folder: Path, tokenizer: Tokenizer, layout: Layout) -> None:
    """Write `config.json` and `vision_config.json` (a full tower of five layers, four kept)."""
    named = {"bos_token_id": "<|startoftext|>", "eos_token_id": "<|endoftext|>"}
    config = {
        **LLAVA,
        **layout.config,
        layout.vocabulary: tokenizer.get_vocab_size(),
        **{key: tokenizer.token_to_id(token) for key, token in named.items()},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
    vision = VISION | {"image_size": layout.image_size}
    (folder / "vision_config.json").write_text(json.dumps(vision, indent=1, sort_keys=True))


def write_weights(
    folder: Path, tower: dict[str, Tensor], student: dict[str, Tensor], layout: Layout
) -> None:
    """Write `model.safetensors` under the official names."""
    named = {
        "model.vision_tower.vision_tower.vision_model." + key.removeprefix("vision."): value
        for key, value in tower.items()
    }
    for key, value in student.items():
        part, rest = key.split(".", 1) if "." in key else (key, "")
        match part:
            case "projector":
                named[f"model.mm_projector.{rest}"] = value
            case "newline":
                named["model.image_newline"] = value
            case _:
                name = rest if rest.startswith("lm_head") else f"model.{rest}"
                named[layout.rename(name)] = value
    save_file(
        {key: value.detach().contiguous() for key, value in named.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
