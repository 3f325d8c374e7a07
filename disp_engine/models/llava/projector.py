"""The projector as a file of its own, under the names that LLaVA tooling reads."""

from pathlib import Path

import torch
from torch import nn

from disp_engine.models import projector as generic
from disp_engine.models.llava.weights import PROJECTOR


def save_projector(projector: nn.Module, dtype: torch.dtype, path: Path) -> None:
    """Write `model.mm_projector.{0,2}.{weight,bias}` as safetensors."""
    generic.save_projector(projector, PROJECTOR, dtype, path)


def load_projector(projector: nn.Module, path: Path) -> None:
    """Replace the projector's weights; names, shapes and finiteness are checked first."""
    generic.load_projector(projector, PROJECTOR, path)
