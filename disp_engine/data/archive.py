"""Zip, tar and plain folders read member by member; nothing is ever extracted by name."""

import lzma
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from disp_engine.errors import InvalidDatasetError

MAX_MEMBERS = 200_000
MAX_MEMBER_BYTES = 512 * 2**20
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError,
    NotImplementedError,
)  # fmt: skip


@runtime_checkable
class Readable(Protocol):
    """An open file, wherever it lies."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        ...


@dataclass(frozen=True)
class Member:
    """One regular file of an archive, open for reading once."""

    name: str
    content: Readable

    def read(self) -> bytes:
        """Return the content, or refuse a member that is too large."""
        try:
            data = self.content.read(MAX_MEMBER_BYTES + 1)
        except DAMAGED as error:
            raise InvalidDatasetError(f"{self.name}: damaged archive: {error}.") from error
        if len(data) > MAX_MEMBER_BYTES:
            raise InvalidDatasetError(f"{self.name}: larger than {MAX_MEMBER_BYTES} bytes.")
        return data


def kind(path: Path) -> str:
    """`zip`, `tar` or `folder`, by content and not by name."""
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise InvalidDatasetError(f"{path.name}: there is no such file or folder.")
    if zipfile.is_zipfile(path):
        return "zip"
    if tarfile.is_tarfile(path):
        return "tar"
    raise InvalidDatasetError(f"{path.name}: neither a zip nor a tar archive.")


def members(path: Path) -> Iterator[Member]:
    """Yield the regular files, in the archive's order; refuse unsafe or repeated names."""
    readers = {"zip": _zip_members, "tar": _tar_members, "folder": _folder_members}
    seen: set[str] = set()
    try:
        for member in readers[kind(path)](path):
            _check_name(member.name, seen)
            if len(seen) > MAX_MEMBERS:
                raise InvalidDatasetError(f"{path.name}: more than {MAX_MEMBERS} members.")
            yield member
    except DAMAGED as error:
        raise InvalidDatasetError(f"{path.name}: damaged archive: {error}.") from error


def _check_name(name: str, seen: set[str]) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise InvalidDatasetError(f"{name!r}: member names must stay inside the archive.")
    folded = unicodedata.normalize("NFC", name).casefold()
    if folded in seen:
        raise InvalidDatasetError(f"{name!r}: two members have this name.")
    seen.add(folded)


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            kind_bits = stat.S_IFMT(info.external_attr >> 16)
            if kind_bits not in (0, stat.S_IFREG):
                raise InvalidDatasetError(f"{info.filename!r}: only regular files are accepted.")
            if info.flag_bits & 1:
                raise InvalidDatasetError(f"{info.filename!r}: encrypted members are refused.")
            if info.file_size > 2**20 and info.file_size > 200 * max(info.compress_size, 1):
                raise InvalidDatasetError(f"{info.filename!r}: compressed beyond 200:1.")
            with archive.open(info) as content:
                yield Member(info.filename, content)


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, mode="r|*") as archive:
        for info in archive:
            if info.isdir():
                continue
            content = archive.extractfile(info) if info.isreg() else None
            if content is None:
                raise InvalidDatasetError(f"{info.name!r}: only regular files are accepted.")
            yield Member(info.name.removeprefix("./"), content)


def _folder_members(path: Path) -> Iterator[Member]:
    for file in sorted(path.rglob("*")):
        if file.is_symlink():
            raise InvalidDatasetError(f"{file.name!r}: links are refused.")
        if file.is_file():
            with file.open("rb") as content:
                yield Member(file.relative_to(path).as_posix(), content)
