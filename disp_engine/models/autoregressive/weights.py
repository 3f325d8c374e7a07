"""Names of tensors in published folders and in transformers' modules, and the way between.

Folders bear the names that transformers saves under, which are older than those of its modules.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from disp_engine.models.inspection import Memory, value_bytes
from disp_engine.models.tensors import Checkpoint

HEAD = "lm_head.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"

_RENAMED = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (r"^multi_modal_projector\.", "model.multi_modal_projector."),
    (r"^image_newline$", "model.image_newline"),
    (r"^visual\.", "model.visual."),
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
)
_COMPUTED = (".rotary_emb.inv_freq", ".position_ids")
"""Ends of names of buffers that old folders hold and that are computed anew."""

_TEXT, _ANSWER = 128, 256
"""Positions of a prompt's text and of an answer."""


def module_name(name: str) -> str:
    """A tensor's name in transformers' modules, given its name there or in a folder."""
    for pattern, replacement in _RENAMED:
        renamed, found = re.subn(pattern, replacement, name)
        if found:
            return renamed
    return name


def open_checkpoint(folder: Path) -> Checkpoint:
    """The folder's weight files by the modules' names, without buffers that are computed."""
    held = Checkpoint.from_folder(folder, module_name)
    kept = {name: e for name, e in held.entries.items() if not name.endswith(_COMPUTED)}
    return Checkpoint(held.files, kept)


def shapes(kind: Any, config: Any, checkpoint: Checkpoint | None) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a model needs; a head tied to the embeddings may be left out."""
    with torch.device("meta"):
        state = kind(config).state_dict()
    found = {name: tuple(value.shape) for name, value in state.items()}
    if config.tie_word_embeddings and (checkpoint is None or HEAD not in checkpoint.entries):
        del found[HEAD]
    return found


def memory(
    config: Any,
    tensors: Mapping[str, tuple[int, ...]],
    projector: str,
    visual_tokens: int,
    dtype: str,
) -> Memory:
    """Estimate what one sample with one picture takes while the projector is tuned.

    A layer keeps for the way back the float32 inputs of its two norms, query, key, value and
    output of its attention, and three inner values of its MLP.
    """
    b, text = value_bytes(dtype), config.text_config
    tuned = sum(math.prod(shape) for name, shape in tensors.items() if name.startswith(projector))
    positions = visual_tokens + _TEXT + _ANSWER
    grouped = text.num_key_value_heads / text.num_attention_heads
    attention = text.hidden_size * b * (2 + 2 * grouped)
    layer = int(2 * 4 * text.hidden_size + attention + 3 * text.intermediate_size * b)
    return Memory(
        weights=(sum(map(math.prod, tensors.values())) - tuned) * b,
        training=4 * 4 * tuned,  # parameter, gradient and AdamW's two moments
        activations=positions * text.num_hidden_layers * layer,
        features=visual_tokens * config.vision_config.hidden_size * b,
        positions=positions,
    )
