"""A tuned projector back into a checkpoint folder that the model's own tooling loads.

Only the files that hold the projector are rewritten: their headers stay, the projector's bytes
are replaced while the rest streams by. The weights are never in memory together.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save_file

from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.models.inspection import SUMS, Family, sha256
from disp_engine.models.tensors import FLOATS, PICKLES, Checkpoint, Entry
from disp_engine.registry import family

_PIECE = 8 * 2**20
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
    adapter: Family = family(folder)
    adapter.check(folder)
    checkpoint = adapter.checkpoint(folder)
    places = _places(adapter, checkpoint, projector)
    draft = out.with_name(f".{out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    rewritten = sorted({entry.file.name for entry, _ in places})
    for path in checkpoint.files:
        mine = {entry: data for entry, data in places if entry.file == path}
        _copy(path, draft / path.name, mine)
    copied, left_out = _copy_rest(folder, draft)
    names = sorted({*copied, *(path.name for path in checkpoint.files)})
    sums = {name: sha256(draft / name) for name in names}
    (draft / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    os.replace(draft, out)
    return Exported(sums, tuple(rewritten), left_out, "Load the folder as the original is loaded.")


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


def _copy(source: Path, target: Path, replaced: Mapping[Entry, bytes]) -> None:
    """Copy a safetensors file with other bytes at some tensors' places."""
    with source.open("rb") as old, target.open("wb") as new:
        head = old.read(8)
        body = 8 + int.from_bytes(head, "little")
        new.write(head)
        for entry, data in sorted(replaced.items(), key=lambda pair: pair[0].begin):
            _pass_on(old, new, body + entry.begin - old.tell())
            new.write(data)
            old.seek(entry.size, os.SEEK_CUR)
        _pass_on(old, new, source.stat().st_size - old.tell())
        new.flush()
        os.fsync(new.fileno())


def _pass_on(old: BinaryIO, new: BinaryIO, count: int) -> None:
    for piece in _pieces(old, count):
        new.write(piece)


def _pieces(file: BinaryIO, count: int) -> Iterator[bytes]:
    while count > 0:
        piece = file.read(min(count, _PIECE))
        if not piece:
            raise InvalidModelError(f"{file.name} ended while it was copied.")
        count -= len(piece)
        yield piece


def _copy_rest(folder: Path, draft: Path) -> tuple[list[str], tuple[str, ...]]:
    """Copy configs and tokenizer; return what was copied and what stays behind."""
    copied, left_out = [], []
    for path in sorted(folder.iterdir()):
        if (draft / path.name).exists():
            continue
        if not path.is_file() or path.suffix in _LEFT_OUT or path.name in {SUMS, "card.yaml"}:
            left_out.append(path.name)
        else:
            shutil.copyfile(path, draft / path.name)
            copied.append(path.name)
    return copied, tuple(left_out)
