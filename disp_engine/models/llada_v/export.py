"""The projector as a file of its own, under the names that LLaVA tooling reads."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from disp_engine.models.llada_v.weights import (
    PROJECTOR,
    check_names,
    read_tensors,
    refuse_pickle,
)


def save_projector(projector: nn.Module, dtype: torch.dtype, path: Path) -> None:
    """Write `model.mm_projector.{0,2}.{weight,bias}` as safetensors."""
    state = projector.state_dict()
    tensors = {PROJECTOR + name: value.detach().cpu().to(dtype) for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def load_projector(projector: nn.Module, path: Path) -> None:
    """Replace the projector's weights; names, shapes and finiteness are checked first."""
    refuse_pickle(path)
    tensors = read_tensors([path])
    state = projector.state_dict()
    check_names({PROJECTOR + name: value.shape for name, value in state.items()}, tensors)
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(tensors[PROJECTOR + name])
