"""Tar archives, plain or gzipped, read header by header; only regular files and folders.

The standard library's reader is not used: it loads extended headers of any length into memory.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Protocol, runtime_checkable

from disp_engine.data.budget import Budget
from disp_engine.errors import ArchiveMalformed, UnsafeMember

GZIP = b"\x1f\x8b"
BLOCK = 512
CHUNK = 1 << 18
MAX_EXTENDED = 2**20
"""Bytes of one extended header; attributes of a file system may take some thousand."""
FILES, FOLDER = (b"0", b"\0"), b"5"
_EXTENDED, _GLOBAL, _LONG_NAME = b"x", b"g", b"L"
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_MEANINGFUL = ("path", "size", "linkpath")
_POSIX = b"ustar\0"
_NUMBERS = ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
"""Mode, owner, group, time and device: unused here, but no other reader may stumble over them."""


@runtime_checkable
class Source(Protocol):
    """Bytes one after the other."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class TarEntry:
    """A regular file or a folder; read its content before the next entry is asked for."""

    name: str
    size: int
    is_folder: bool


@dataclass
class _Extension:
    """What extended headers say of the next member."""

    name: str | None = None
    size: int | None = None


class Gunzip:
    """One gzip stream, unpacked as it is read, and nothing behind it."""

    def __init__(self, file: BufferedIOBase, budget: Budget) -> None:
        self._file, self._budget = file, budget
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._packed = self._ready = b""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        while len(self._ready) < size and not self._inflate.eof:
            self._packed = self._packed or self._file.read(CHUNK)
            if not self._packed:
                raise ArchiveMalformed("truncated gzip stream.")
            self._ready += self._more()
        found, self._ready = self._ready[:size], self._ready[size:]
        if self._inflate.eof and (self._inflate.unused_data or self._file.read(1)):
            raise ArchiveMalformed("bytes behind the end of the gzip stream.")
        return found

    def _more(self) -> bytes:
        try:
            data = self._inflate.decompress(self._packed, CHUNK)
        except zlib.error as error:
            raise ArchiveMalformed(f"broken gzip stream: {error}.") from error
        self._packed = self._inflate.unconsumed_tail
        self._budget.spend(len(data))
        return data


class TarReader:
    """Walks through a tar; `content` gives the bytes of the entry that came last."""

    def __init__(self, source: Source, budget: Budget) -> None:
        self._source, self._budget = source, budget
        self._left = self._padding = 0

    def entries(self) -> Iterator[TarEntry]:
        """Yield the files and folders."""
        extension = _Extension()
        while header := self._header():
            kind, size, name = header[156:157], _number(header[124:136]), _name(header)
            if kind in (_EXTENDED, _GLOBAL, _LONG_NAME):
                extension = self._extended(kind, size, extension)
                continue
            folder = kind == FOLDER or (kind == b"\0" and name.endswith("/"))
            name = name if extension.name is None else extension.name
            size = size if extension.size is None else extension.size
            if kind == b"\0" and folder != name.endswith("/"):
                raise ArchiveMalformed(f"{name!r}: a file to some readers and a folder to others.")
            if not folder and kind not in FILES:
                raise UnsafeMember(f"{name!r}: only regular files are accepted.")
            if folder and size:
                raise ArchiveMalformed(f"{name!r}: a folder with content.")
            self._budget.member(name, size, size)
            self._begin(size)
            yield TarEntry(name, size, folder)
            for _ in self.content():
                pass
            extension = _Extension()
        if extension != _Extension():
            raise ArchiveMalformed("an extended header without its member.")
        self._check_end()

    def content(self) -> Iterator[bytes]:
        """Yield what is left of the present entry."""
        while self._left:
            yield self._take(min(CHUNK, self._left))
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0

    def _begin(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK

    def _take(self, size: int) -> bytes:
        self._left -= size
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) != size:
            raise ArchiveMalformed("truncated tar archive.")
        return data

    def _header(self) -> bytes | None:
        block = self._exactly(BLOCK)
        if not any(block):
            return None
        if not has_checksum(block):
            raise ArchiveMalformed("a tar header whose checksum is wrong.")
        for begin, end in _NUMBERS:
            _number(block[begin:end])
        return block

    def _check_end(self) -> None:
        while block := self._source.read(BLOCK):
            if any(block):
                raise ArchiveMalformed("bytes behind the end of the tar archive.")

    def _extended(self, kind: bytes, size: int, known: _Extension) -> _Extension:
        if size > MAX_EXTENDED:
            raise ArchiveMalformed(f"an extended header of {size} bytes.")
        self._begin(size)
        data = b"".join(self.content())
        if kind == _LONG_NAME:
            return _added(known, _Extension(_text(data.rstrip(b"\0"))))
        fields = _fields(data)
        if kind == _GLOBAL and any(key in fields for key in _MEANINGFUL):
            raise ArchiveMalformed("a global header that renames or resizes members.")
        if kind == _GLOBAL:
            return known
        if any(key.startswith("GNU.sparse") for key in fields):
            raise UnsafeMember("sparse members are refused.")
        told = fields.get("size")
        if told is not None and not re.fullmatch(rb"[0-9]{1,18}", told):
            raise ArchiveMalformed("an extended header with an impossible size.")
        name = _text(fields["path"]) if "path" in fields else None
        return _added(known, _Extension(name, None if told is None else int(told)))


def _added(known: _Extension, more: _Extension) -> _Extension:
    """Both together; of two that say the same thing readers differ about which one counts."""
    if None not in (known.name, more.name) or None not in (known.size, more.size):
        raise ArchiveMalformed("two extended headers for one member.")
    name = more.name if known.name is None else known.name
    return _Extension(name, more.size if known.size is None else known.size)


def has_checksum(block: bytes) -> bool:
    """Whether a block is a tar header, by its own sum."""
    told = _OCTAL.fullmatch(block[148:156])
    if len(block) != BLOCK or told is None or not told[1]:
        return False
    return int(told[1], 8) == sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise ArchiveMalformed("a tar header with an impossible number.")
    return int(found[1] or b"0", 8)


def _name(header: bytes) -> str:
    name = _cut(header[:100])
    prefix = _cut(header[345:500])
    if prefix and header[257:263] != _POSIX:
        raise ArchiveMalformed(f"{name!r}: a part of its name that only some readers see.")
    return _text(prefix + b"/" + name if prefix else name)


def _cut(field: bytes) -> bytes:
    name, _, rest = field.partition(b"\0")
    if any(rest):
        raise UnsafeMember(f"{field!r}: a member name with a NUL.")
    return name


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise UnsafeMember(f"{name!r}: a member name is not UTF-8.") from error


def _fields(data: bytes) -> dict[str, bytes]:
    """Return the records `LENGTH KEY=VALUE` of a pax header."""
    fields: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        found = re.compile(rb"([1-9][0-9]{0,8}) ([^=]+)=").match(data, at)
        end = at + int(found[1]) if found else 0
        if found is None or end > len(data) or end <= found.end() or data[end - 1 : end] != b"\n":
            raise ArchiveMalformed("a broken extended header.")
        key = _text(found[2])
        if key in fields:
            raise ArchiveMalformed(f"an extended header that says {key!r} twice.")
        fields[key] = data[found.end() : end - 1]
        at = end
    return fields
