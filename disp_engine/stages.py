"""Finished work kept on disk under a hash of all that determines it.

A stage is a folder `NAME-KEY` of small files, each written whole or not at all. A killed run
finds the files it had finished; the same request again finds the whole stage.
"""

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load, save_file
from torch import Tensor

from disp_engine.digests import digest as digest
from disp_engine.digests import write_atomically as write_atomically

LAYOUT = 5
"""Raised when stage files mean something else than before, or are computed by other sums; it is
part of every key."""


class StageFolder:
    """A stage as files; whoever is told of the folder may work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def complete(self) -> bool:
        """Whether an earlier run finished the stage."""
        return (self.folder / "COMPLETE").exists()

    def finish(self) -> None:
        """Mark the stage as finished."""
        write_atomically(self.folder / "COMPLETE", b"")

    def has(self, name: str) -> bool:
        """Whether the file is there, whole."""
        return (self.folder / name).exists()

    def remove(self, name: str) -> None:
        """Forget a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> None:
        """Keep a JSON value."""
        write_atomically(self.folder / name, json.dumps(value, allow_nan=False).encode())

    def read_json(self, name: str) -> Any:
        """Return a kept JSON value."""
        return json.loads((self.folder / name).read_bytes())

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors."""
        draft = self.folder / f".{name}.{os.getpid()}"
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        save_file(contiguous, draft)
        os.replace(draft, self.folder / name)

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """Return kept tensors, in memory: for small files mapping takes longer."""
        return load((self.folder / name).read_bytes())


class Stage(StageFolder):
    """One stage's folder below `root`, found by name and by what determines its result."""

    def __init__(self, root: Path, name: str, inputs: Mapping[str, Any]) -> None:
        self.name = name
        software = {"disp": version("disp"), "torch": version("torch"), "layout": LAYOUT}
        self.key = digest({"software": software, "stage": name, **inputs})
        super().__init__(root / f"{name}-{self.key[:24]}")
