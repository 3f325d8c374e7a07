"""The projector as a file of its own, under the names that the family's own tooling reads."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from disp_engine.models.tensors import check_names, read_tensors, refuse_pickle


def save_projector(projector: nn.Module, prefix: str, dtype: torch.dtype, path: Path) -> None:
    """Write the projector's tensors, each under `prefix` and its own name, as safetensors."""
    state = projector.state_dict()
    tensors = {prefix + name: value.detach().cpu().to(dtype) for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def load_projector(projector: nn.Module, prefix: str, path: Path) -> None:
    """Replace the projector's weights; names, shapes and finiteness are checked first."""
    refuse_pickle(path)
    tensors = read_tensors([path])
    state = projector.state_dict()
    check_names({prefix + name: value.shape for name, value in state.items()}, tensors)
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(tensors[prefix + name])
