"""The safetensors files of a checkpoint folder, held in suspicion; nothing is unpickled.

A folder is judged by the headers of its
weight files before any weight is read; tensors are then read one at a time.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from disp_engine.errors import InvalidModelError, UnsafeFormat
from disp_engine.models.checkpoint import parse_object, read_json

LARGEST_HEADER = 16 * 2**20
"""Bytes; the header of an 8B model takes some 50 kB."""

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_MAGIC = (b"PK\x03\x04", b"\x80", b"7z\xbc\xaf\x27\x1c")
"""Of torch.save's zip archive, of a bare pickle, and of what hides one from scanners of zips."""


def refuse_pickle(path: Path) -> None:
    """Refuse a file that runs code when it is read, by its name or, renamed, by its first bytes."""
    with path.open("rb") as file:
        begun = file.read(8)
    # A header of a length that is allowed leaves zeros in the last bytes of these eight.
    too_long = int.from_bytes(begun, "little") > LARGEST_HEADER
    if path.suffix in PICKLES or (too_long and begun.startswith(_MAGIC)):
        raise UnsafeFormat(
            f"{path.name} is a pickle, which can run code when it is read. Convert it where that "
            f"does no harm: safetensors.torch.save_file(torch.load({path.name!r}, "
            f"weights_only=True), 'converted.safetensors')."
        )


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: the name it has there, its type and shape, and its place in bytes."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.begin


@dataclass(frozen=True)
class Checkpoint:
    """The weight files of a folder by their headers; `entries` by the names a family gives."""

    files: tuple[Path, ...]
    entries: Mapping[str, Entry]
    _open: dict[Path, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_folder(cls, folder: Path, rename: Callable[[str], str] = str) -> "Checkpoint":
        """Judge the headers of all weight files of a folder."""
        return cls.from_files(weight_files(folder), rename)

    @classmethod
    def from_files(cls, files: Iterable[Path], rename: Callable[[str], str] = str) -> "Checkpoint":
        """Judge the headers of some files, in which no name may stand twice."""
        held, entries = tuple(files), dict[str, Entry]()
        for path in held:
            for entry in read_header(path):
                name = rename(entry.name)
                if name in entries:
                    other = entries[name].file.name
                    raise InvalidModelError(
                        f"{path.name}: {entry.name} is there a second time; first in {other}."
                    )
                entries[name] = entry
        return cls(held, entries)

    def tensor(self, name: str) -> Tensor:
        """Read one tensor; all of its values are finite."""
        entry = self.entries[name]
        if entry.dtype not in FLOATS:
            raise InvalidModelError(
                f"{entry.file.name}: {entry.name} has dtype {entry.dtype}; weights must be "
                f"{', '.join(FLOATS)}."
            )
        found: Tensor = self._file(entry.file).get_tensor(entry.name)
        if not bool(torch.isfinite(found).all()):
            raise InvalidModelError(
                f"{entry.file.name}: {entry.name} holds values that are not finite."
            )
        return found

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            try:
                self._open[path] = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise InvalidModelError(
                    f"{path.name} is not a safetensors file: {error}."
                ) from error
        return self._open[path]


def check_names(wanted: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> None:
    """Hold the files' names and shapes against what a model needs; no weight is read."""
    held = checkpoint.entries
    _refuse("missing", wanted.keys() - held.keys())
    _refuse(
        "unexpected",
        {f"{held[n].name} (in {held[n].file.name})" for n in held.keys() - wanted.keys()},
    )
    for name, shape in wanted.items():
        entry = held[name]
        if entry.shape != shape:
            raise InvalidModelError(
                f"{entry.file.name}: {entry.name} has shape {entry.shape} where {shape} is needed."
            )


def _refuse(problem: str, names: Set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
        raise InvalidModelError(f"The weights do not fit: {len(names)} {problem}: {shown}.")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, one or those an index names."""
    whole, index = (folder / WHOLE).is_file(), (folder / INDEX).is_file()
    if whole and index:
        raise InvalidModelError(f"The model folder has both {WHOLE} and {INDEX}; keep one.")
    if index:
        return _shards(folder)
    if whole:
        return [folder / WHOLE]
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLES:
            refuse_pickle(path)
    raise InvalidModelError(f"The model folder has neither {WHOLE} nor {INDEX}.")


def read_header(path: Path) -> list[Entry]:
    """The tensors of a safetensors file; its bytes are all accounted for and none is read twice."""
    refuse_pickle(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise InvalidModelError(
                f"{path.name}: a header of {length} bytes is larger than {LARGEST_HEADER}."
            )
        if size < 8 + length:
            raise InvalidModelError(f"{path.name} is truncated: it ends within its header.")
        header = parse_object(file.read(length), f"{path.name}: the header")
    header.pop("__metadata__", None)
    entries = [_entry(path, name, told) for name, told in header.items()]
    _check_places(path, entries, size - 8 - length)
    return entries


def _entry(path: Path, name: str, told: Any) -> Entry:
    try:
        begin, end = told["data_offsets"]
        shape, dtype = tuple(told["shape"]), str(told["dtype"])
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidModelError(
            f"{path.name}: {name!r} lacks a dtype, a shape or offsets."
        ) from error
    if not whole or end < begin:
        raise InvalidModelError(f"{path.name}: {name!r} has impossible sizes.")
    if dtype in FLOATS and end - begin != math.prod(shape) * FLOATS[dtype].itemsize:
        raise InvalidModelError(
            f"{path.name}: {name!r} takes {end - begin} bytes, which {dtype} {shape} does not."
        )
    return Entry(path, name, dtype, shape, begin, end)


def _check_places(path: Path, entries: Iterable[Entry], held: int) -> None:
    """Each byte behind the header belongs to one tensor."""
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != at:
            raise InvalidModelError(
                f"{path.name}: {entry.name!r} overlaps another or leaves a gap."
            )
        at = entry.end
        if at > held:
            raise InvalidModelError(
                f"{path.name} is truncated: {entry.name!r} should end at byte {at} of {held}."
            )
    if at != held:
        raise InvalidModelError(f"{path.name}: {held - at} bytes belong to no tensor.")


def _shards(folder: Path) -> list[Path]:
    table = read_json(folder / INDEX).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise InvalidModelError(f"{INDEX} has no weight_map of names to files.")
    files = [folder / name for name in sorted(set(table.values()))]
    for path in files:
        if path.suffix in PICKLES:
            refuse_pickle(path)
        if path.parent != folder or path.suffix != ".safetensors" or not path.is_file():
            raise InvalidModelError(f"{INDEX} names {path.name}, which is not a file beside it.")
    _check_index(table, files)
    return files


def _check_index(table: Mapping[str, str], files: Iterable[Path]) -> None:
    held = {(entry.name, path.name) for path in files for entry in read_header(path)}
    for name, file in sorted(set(table.items()) ^ held):
        said = "is not in" if name in table and table[name] == file else "does not name what is in"
        raise InvalidModelError(f"{INDEX}: {name} {said} {file}.")
