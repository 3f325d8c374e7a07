"""The revision of a model folder: one hash that a tuned projector does not change."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from disp_engine.models.tensors import Checkpoint


class Revision:
    """sha256 over a folder's small files and, in the order they are given, its tensors.

    Those whose names begin with `projector` are left out.
    """

    def __init__(self, described_by: Iterable[Path], projector: str) -> None:
        self._digest, self._projector = hashlib.sha256(), projector
        for path in described_by:
            self._digest.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in a tensor: its name, type, shape and bytes."""
        if not name.startswith(self._projector):
            self._digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
            self._digest.update(tensor.contiguous().view(torch.uint8).numpy().data)

    def hexdigest(self) -> str:
        """The hash of what was taken in so far."""
        return self._digest.hexdigest()


def read_all(
    checkpoint: Checkpoint, described_by: Iterable[Path], projector: str
) -> tuple[dict[str, Tensor], str]:
    """All tensors by name, and the folder's revision."""
    revision = Revision(described_by, projector)
    tensors = {name: checkpoint.tensor(name) for name in sorted(checkpoint.entries)}
    for name, tensor in tensors.items():
        revision.add(name, tensor)
    return tensors, revision.hexdigest()
