"""A tuned projector back into a checkpoint folder that the model's own tooling loads.

Only the files that hold the projector are rewritten: their headers stay, the projector's bytes
are replaced while the rest streams by. The weights are never in memory together.
"""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors.torch import save_file

from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.models.inspection import SUMS, Family, sha256
from disp_engine.models.tensors import FLOATS, PICKLES, Checkpoint, Entry
from disp_engine.registry import family

_PIECE = 8 * 2**20
_LOADING = "Load the folder as the original is loaded."
_LEFT_OUT = {*PICKLES, ".py", ".safetensors"}


@dataclass(frozen=True)
class Exported:
    """What was written: sha256 of each file, the rewritten ones, what was left out, and a hint.

    `loading` is the line by which the family's tooling loads it.
    """

    sha256: Mapping[str, str]
    rewritten: tuple[str, ...]
    left_out: tuple[str, ...]
    loading: str

    def to_json(self) -> dict[str, Any]:
        """What was written as plain values."""
        return asdict(self)


def export_checkpoint(folder: Path, projector: Path, out: Path) -> Exported:
    """Write a copy of `folder` with another projector; `out` appears when it is whole.

    Pickles and code of the folder stay behind: a stale `mm_projector.bin` would be loaded in the
    projector's place. A card does too, since its hashes tell of other weights.
    """
    _refuse_existing(out)
    merged = _Merged.of(folder, projector)
    draft = out.with_name(f".{out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    sums = {path.name: _write(merged.reader(path), draft / path.name) for path in merged.files}
    (draft / SUMS).write_text(_lines(sums))
    os.replace(draft, out)
    return merged.told(sums)


def pack_checkpoint(folder: Path, projector: Path, out: Path) -> Exported:
    """Write the same as one tar; it streams by, so that nothing else takes room on the disk."""
    _refuse_existing(out)
    merged, sums = _Merged.of(folder, projector), dict[str, str]()
    draft = out.with_name(f".{out.name}.part")
    with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in merged.files:
            reader = merged.reader(path)
            _add(archive, path.name, path.stat().st_size, reader)
            sums[path.name] = reader.sha256()
        lines = _lines(sums).encode()
        _add(archive, SUMS, len(lines), io.BytesIO(lines))
    os.replace(draft, out)
    return merged.told(sums)


def export_projector(folder: Path, projector: Path, out: Path) -> Exported:
    """Write the projector alone, in the types of the folder's weights."""
    _refuse_existing(out)
    adapter: Family = family(folder)
    places = _places(adapter, adapter.checkpoint(folder), projector)
    tensors = {
        entry.name: torch.frombuffer(bytearray(data), dtype=FLOATS[entry.dtype]).reshape(
            entry.shape
        )
        for entry, data in places
    }
    save_file(tensors, out)
    return Exported({out.name: sha256(out)}, (out.name,), (), adapter.loading.format(path=str(out)))


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise InvalidRequestError(f"{out} is there already; name what is not.")


def _places(adapter: Family, checkpoint: Checkpoint, projector: Path) -> list[tuple[Entry, bytes]]:
    """The projector's new bytes, and where in the checkpoint they go."""
    given = Checkpoint.from_files([projector])
    held = {n: e for n, e in checkpoint.entries.items() if n.startswith(adapter.projector_prefix)}
    if given.entries.keys() != held.keys():
        names = ", ".join(sorted(given.entries.keys() ^ held.keys()))
        raise InvalidModelError(f"{projector.name} and the checkpoint do not both have {names}.")
    places = []
    for name, entry in held.items():
        if given.entries[name].shape != entry.shape:
            raise InvalidModelError(
                f"{projector.name}: {name} has shape {given.entries[name].shape} where "
                f"{entry.shape} is needed."
            )
        if entry.dtype not in FLOATS:
            raise InvalidModelError(f"{entry.file.name}: {name} has dtype {entry.dtype}.")
        value = given.tensor(name).to(FLOATS[entry.dtype]).contiguous()
        places.append((entry, value.view(torch.uint8).numpy().tobytes()))
    return places


@dataclass(frozen=True)
class _Merged:
    """A folder's files as they will be: those that hold the projector with other bytes in them."""

    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    replaced: Mapping[Path, Mapping[Entry, bytes]]

    @classmethod
    def of(cls, folder: Path, projector: Path) -> "_Merged":
        adapter: Family = family(folder)
        adapter.check(folder)
        checkpoint = adapter.checkpoint(folder)
        replaced: dict[Path, dict[Entry, bytes]] = {}
        for entry, data in _places(adapter, checkpoint, projector):
            replaced.setdefault(entry.file, {})[entry] = data
        weights = set(checkpoint.files)
        others = [path for path in folder.iterdir() if path not in weights]
        left_out = sorted(path.name for path in others if _stays_behind(path))
        kept = [path for path in others if path.name not in left_out]
        return cls(tuple(sorted([*weights, *kept])), tuple(left_out), replaced)

    def reader(self, path: Path) -> "_Reader":
        replaced = self.replaced.get(path)
        return _Reader(_rewritten(path, replaced) if replaced else _pieces(path))

    def told(self, sums: Mapping[str, str]) -> Exported:
        rewritten = tuple(sorted(path.name for path in self.replaced))
        return Exported(sums, rewritten, self.left_out, _LOADING)


def _stays_behind(path: Path) -> bool:
    return not path.is_file() or path.suffix in _LEFT_OUT or path.name in {SUMS, "card.yaml"}


class _Reader:
    """Pieces of bytes as a file that can be read once; it knows what it has read by its hash."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held, self._digest = pieces, b"", hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return `size` bytes; fewer only at the end."""
        while len(self._held) < size and (piece := next(self._pieces, b"")):
            self._held += piece
        taken, self._held = self._held[:size], self._held[size:]
        self._digest.update(taken)
        return taken

    def sha256(self) -> str:
        return self._digest.hexdigest()


def _write(reader: _Reader, target: Path) -> str:
    with target.open("wb") as file:
        while piece := reader.read(_PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return reader.sha256()


def _add(archive: tarfile.TarFile, name: str, size: int, content: "_Reader | io.BytesIO") -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    archive.addfile(info, cast(IO[bytes], content))


def _lines(sums: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def _rewritten(path: Path, replaced: Mapping[Entry, bytes]) -> Iterator[bytes]:
    """A safetensors file with other bytes at some tensors' places."""
    with path.open("rb") as file:
        body = 8 + int.from_bytes(file.read(8), "little")
    at = 0
    for entry, data in sorted(replaced.items(), key=lambda pair: pair[0].begin):
        yield from _pieces(path, at, body + entry.begin)
        yield data
        at = body + entry.end
    yield from _pieces(path, at)


def _pieces(path: Path, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
    with path.open("rb") as file:
        left = (path.stat().st_size if end is None else end) - begin
        file.seek(begin)
        while left > 0:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise InvalidModelError(f"{path.name} ended while it was copied.")
            left -= len(piece)
            yield piece
