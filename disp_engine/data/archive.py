"""Zip, tar and plain folders read member by member; nothing is ever extracted by name."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath

from disp_engine.data import zips
from disp_engine.data.budget import Budget
from disp_engine.data.names import Names
from disp_engine.data.tars import BLOCK, GZIP, Gunzip, TarReader, has_checksum
from disp_engine.errors import (
    ArchiveBomb,
    ArchiveMalformed,
    InvalidDatasetError,
    PickleRefused,
    UnsafeMember,
)

CHUNK = 1 << 18
HEAD = 16
ARCHIVES = {
    b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar",
    b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstandard",
}  # fmt: skip
"""First bytes of what would unpack once more."""
PICKLES = frozenset(
    {".pkl", ".pickle", ".pyd", ".pth", ".pt", ".bin", ".ckpt", ".npy", ".npz", ".joblib", ".dill"}
)
_PROTO = b"\x80"  # a pickle of protocol 2 to 5 begins so, then its number


@dataclass(frozen=True)
class Member:
    """One regular file of an archive; its chunks are read once, before the next member."""

    name: str
    chunks: Iterable[bytes]


def kind(path: Path) -> str:
    """`zip`, `tar` or `folder`, by content and not by name."""
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise InvalidDatasetError("there is no such file or folder.")
    with path.open("rb") as file:
        head = file.read(BLOCK)
    if head.startswith((zips.MAGIC, zips.EMPTY)):
        return "zip"
    if head.startswith(GZIP) or has_checksum(head):
        return "tar"
    raise InvalidDatasetError("neither a zip nor a tar archive (which may be gzipped).")


def members(path: Path) -> Iterator[Member]:
    """Yield the regular files as they lie; refuse unsafe or repeated names, bombs and pickles."""
    readers = {"zip": _zip_members, "tar": _tar_members, "folder": _folder_members}
    try:
        for member in readers[kind(path)](path):
            yield Member(member.name, _checked(member))
    except OSError as error:
        raise ArchiveMalformed(f"cannot be read: {error}.") from error


def _checked(member: Member) -> Iterator[bytes]:
    """Refuse what would unpack once more, or run, by its name and its first bytes."""
    head, held = b"", []
    chunks = iter(member.chunks)
    for chunk in chunks:
        held.append(chunk)
        head += chunk
        if len(head) >= HEAD:
            break
    _check_content(member.name, head)
    yield from held
    yield from chunks


def _check_content(name: str, head: bytes) -> None:
    for magic, called in ARCHIVES.items():
        if head.startswith(magic):
            raise ArchiveBomb(f"{name!r}: a {called} archive within the archive.")
    pickled = head[:1] == _PROTO and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    if pickled or PurePosixPath(name).suffix.lower() in PICKLES or head[:6] == b"\x93NUMPY":
        raise PickleRefused(f"{name!r}: such files can run code when they are read; leave it out.")
    if head.startswith(b"PAR1"):
        raise InvalidDatasetError(
            f"{name!r}: Parquet is not read; send the records as JSON or JSON lines, "
            "and the pictures as files."
        )


def _zip_members(path: Path) -> Iterator[Member]:
    names, length = Names(), path.stat().st_size
    budget = Budget(length)
    with path.open("rb") as file:
        entries = zips.zip_entries(file, length)
        for entry in entries:
            names.add(entry.name.removesuffix("/"), folder=entry.is_folder)
        for entry in entries:
            chunks = zips.zip_content(file, entry, budget)
            if entry.is_folder:
                _drain(chunks)
                continue
            yield Member(entry.name, chunks)
            _drain(chunks)


def _tar_members(path: Path) -> Iterator[Member]:
    names, budget = Names(), Budget(path.stat().st_size)
    with path.open("rb") as file:
        reader = TarReader(_unzipped(file, budget), budget)
        for entry in reader.entries():
            name = entry.name.removeprefix("./")
            if entry.is_folder:
                if name.removesuffix("/") not in ("", "."):
                    names.add(name.removesuffix("/"), folder=True)
                continue
            names.add(name)
            yield Member(name, reader.content())


def _unzipped(file: BufferedIOBase, budget: Budget) -> "Gunzip | BufferedIOBase":
    packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    return Gunzip(file, budget) if packed else file


def _folder_members(path: Path) -> Iterator[Member]:
    names = Names()
    for file in sorted(path.rglob("*")):
        if file.is_symlink():
            raise UnsafeMember(f"{file.name!r}: links are refused.")
        if file.is_file():
            name = file.relative_to(path).as_posix()
            names.add(name)
            with file.open("rb") as content:
                yield Member(name, iter(lambda: content.read(CHUNK), b""))


def _drain(chunks: Iterator[bytes]) -> None:
    for _ in chunks:
        pass
