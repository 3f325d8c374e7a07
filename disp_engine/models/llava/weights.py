"""The names of LLaVA's parts, and the way from a checkpoint into them, one tensor at a time."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from accelerate.utils import set_module_tensor_to_device
from torch import nn

from disp_engine.models.revision import Revision
from disp_engine.models.tensors import Checkpoint

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"


Parts = Mapping[str, nn.Module]
"""Modules by the prefix that their tensors' names have; they may stand on the `meta` device."""


def shapes(parts: Parts) -> dict[str, tuple[int, ...]]:
    """What the parts need, by name."""
    return {
        prefix + name: tuple(value.shape)
        for prefix, part in parts.items()
        for name, value in part.state_dict().items()
    }


def fill(
    parts: Parts,
    checkpoint: Checkpoint,
    described_by: Iterable[Path],
    place: Callable[[str], torch.device],
    dtype: torch.dtype | None,
) -> str:
    """Give the parts their tensors; return the folder's revision.

    `place` gives each tensor's device by its name. One tensor at a time is in memory beside the
    model. A vocabulary longer than a part's is cut, as the official loader does: rows that no token
    uses leave the softmax.
    """
    revision = Revision(described_by, PROJECTOR)
    for name, shape in sorted(shapes(parts).items()):
        tensor = checkpoint.tensor(name)
        revision.add(name, tensor)
        cut = tensor[: shape[0]].clone() if tensor.shape != shape else tensor
        prefix = max((p for p in parts if name.startswith(p)), key=len)
        set_module_tensor_to_device(
            parts[prefix], name.removeprefix(prefix), place(name), cut, dtype or cut.dtype
        )
    return revision.hexdigest()
