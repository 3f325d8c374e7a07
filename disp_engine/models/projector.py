"""The projector as a file of its own, under the names that the family's own tooling reads."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from disp_engine.errors import InvalidModelError
from disp_engine.models.tensors import Checkpoint, check_names


def save_projector(projector: nn.Module, prefix: str, dtype: torch.dtype, path: Path) -> None:
    """Write the projector's tensors, each under `prefix` and its own name, as safetensors."""
    state = projector.state_dict()
    save_file({prefix + n: v.detach().cpu().to(dtype).contiguous() for n, v in state.items()}, path)


def load_projector(projector: nn.Module, prefix: str, path: Path) -> None:
    """Replace the projector's weights; names, shapes and finiteness are checked first."""
    given, state = Checkpoint.from_files([path]), projector.state_dict()
    check_names({prefix + name: tuple(value.shape) for name, value in state.items()}, given)
    tensors = {n: given.tensor(prefix + n).to(value.dtype) for n, value in state.items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidModelError(
                f"{path.name}: {prefix}{name} holds values that {tensor.dtype} cannot."
            )
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(tensors[name])
