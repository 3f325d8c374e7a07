"""The projector as a file of its own, under the names that LLaVA tooling reads."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from disp_engine.models.llava.weights import PROJECTOR, check_names, shapes
from disp_engine.models.tensors import Checkpoint


def save_projector(projector: nn.Module, dtype: torch.dtype, path: Path) -> None:
    """Write `model.mm_projector.{0,2}.{weight,bias}` as safetensors."""
    save_file(projector_tensors(projector, dtype), path)


def projector_tensors(projector: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The projector's weights under the official names."""
    state = projector.state_dict()
    return {PROJECTOR + n: v.detach().cpu().to(dtype).contiguous() for n, v in state.items()}


def load_projector(projector: nn.Module, path: Path) -> None:
    """Replace the projector's weights; names, shapes and finiteness are checked first."""
    given = Checkpoint.from_files([path])
    check_names(shapes({PROJECTOR: projector}), given)
    tensors = {name: given.tensor(name) for name in given.entries}
    with torch.no_grad():
        for name, value in projector.state_dict().items():
            value.copy_(tensors[PROJECTOR + name])
