"""Zip archives, read by rules stricter than the format's: all readers see the same, or none.

The central directory must describe every byte in front of it: local headers say what it says,
members lie one behind the other from the first byte on, and nothing follows the end record.
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

from disp_engine.data.budget import Budget
from disp_engine.data.names import MAX_MEMBERS
from disp_engine.errors import ArchiveBomb, ArchiveMalformed, UnsafeMember

MAGIC = b"PK\x03\x04"
EMPTY = b"PK\x05\x06"
CHUNK = 1 << 18
MAX_DIRECTORY = 64 * 2**20
STORED, DEFLATED = 0, 8
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_DESCRIPTORS = {12: "<3I", 16: "<4x3I", 20: "<I2Q", 24: "<4xI2Q"}
_WIDE_END = b"PK\x06\x07"
_FULL, _FULL_SHORT = 0xFFFFFFFF, 0xFFFF
_FULLS = (_FULL_SHORT, _FULL, _FULL)
_NEWEST = 63
"""Ten times the version of the format that a reader must know, at most."""
_ENCRYPTED, _STREAMED, _PATCH, _STRONG, _UTF8, _MASKED = 1, 1 << 3, 1 << 5, 1 << 6, 1 << 11, 1 << 13
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075


@dataclass(frozen=True)
class ZipEntry:
    """A member as the central directory tells of it; `begin` is filled from the local header."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    begin: int = 0

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


def zip_entries(file: BufferedIOBase, length: int) -> list[ZipEntry]:
    """All entries in the order in which they lie, every header checked and none overlapping."""
    start, entries = _directory(file, length)
    placed = []
    entries.sort(key=lambda entry: entry.offset)
    ends = [entry.offset for entry in entries[1:]] + [start]
    if (entries[0].offset if entries else start) != 0:
        raise ArchiveMalformed("bytes in front of the first member.")
    for entry, end in zip(entries, ends, strict=True):
        placed.append(_placed(file, entry, end))
    return placed


def zip_content(file: BufferedIOBase, entry: ZipEntry, budget: Budget) -> Iterator[bytes]:
    """Unpack one member, counting; what it holds must be what its header says."""
    budget.member(entry.name, entry.size, entry.packed)
    file.seek(entry.begin)
    crc = found = 0
    for chunk in _unpacked(file, entry):
        found += len(chunk)
        if found > entry.size:
            raise ArchiveMalformed(f"{entry.name!r}: larger than its header says.")
        budget.spend(len(chunk))
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if found != entry.size or crc != entry.crc:
        raise ArchiveMalformed(f"{entry.name!r}: not the content that its header says.")


def _unpacked(file: BufferedIOBase, entry: ZipEntry) -> Iterator[bytes]:
    left, inflate = entry.packed, zlib.decompressobj(-zlib.MAX_WBITS)
    while left:
        packed = file.read(min(CHUNK, left))
        if not packed:
            raise ArchiveMalformed(f"{entry.name!r}: truncated.")
        left -= len(packed)
        if entry.method == STORED:
            yield packed
            continue
        while packed and not inflate.eof:
            yield _inflated(inflate, packed, entry.name)
            packed = inflate.unconsumed_tail
        if inflate.eof and (inflate.unused_data or left):
            raise ArchiveMalformed(f"{entry.name!r}: bytes behind its compressed content.")
    if entry.method == DEFLATED and not inflate.eof:
        raise ArchiveMalformed(f"{entry.name!r}: its compressed content is cut off.")


def _inflated(inflate: Any, packed: bytes, name: str) -> bytes:
    try:
        data: bytes = inflate.decompress(packed, CHUNK)
        return data
    except zlib.error as error:
        raise ArchiveMalformed(f"{name!r}: {error}.") from error


def _directory(file: BufferedIOBase, length: int) -> tuple[int, list[ZipEntry]]:
    at, count, size, start = _end(file, length)
    if size > MAX_DIRECTORY or count > MAX_MEMBERS:
        raise ArchiveBomb(f"more than {MAX_MEMBERS} members, or a directory too large for them.")
    if start + size != at:
        raise ArchiveMalformed("the central directory does not end where the end record begins.")
    data, place, entries = _read(file, start, size), 0, []
    for _ in range(count):
        entry, place = _central(data, place)
        entries.append(entry)
    if place != size:
        raise ArchiveMalformed("the central directory holds more than it should.")
    return start, entries


def _end(file: BufferedIOBase, length: int) -> tuple[int, int, int, int]:
    """Where the end records begin; number of entries, size and place of the directory."""
    tail_at = max(0, length - _END.size - _FULL_SHORT)
    tail = _read(file, tail_at, length - tail_at)
    fits = []
    found = tail.find(EMPTY)
    while found >= 0:
        if found + _END.size <= len(tail):
            comment = struct.unpack_from("<H", tail, found + 20)[0]
            if found + _END.size + comment == len(tail):
                fits.append(found)
        found = tail.find(EMPTY, found + 1)
    if len(fits) != 1 or tail.rfind(EMPTY) != fits[0]:
        raise ArchiveMalformed("truncated, or bytes behind the end of the zip archive.")
    _, disk, first, here, count, size, start, _ = _END.unpack_from(tail, fits[0])
    if disk or first or here != count:
        raise ArchiveMalformed("a zip archive in several parts.")
    at = tail_at + fits[0]
    if file.seek(max(0, at - _LOCATOR.size)) + _LOCATOR.size == at and file.read(4) == _WIDE_END:
        wide = _end64(file, at)
        for told, full, true in zip((count, size, start), _FULLS, wide[1:], strict=True):
            if told not in (full, true):
                raise ArchiveMalformed("two end records that differ.")
        return wide
    if count == _FULL_SHORT or _FULL in (size, start):
        raise ArchiveMalformed("the zip64 end record is missing.")
    return at, count, size, start


def _end64(file: BufferedIOBase, end: int) -> tuple[int, int, int, int]:
    at = end - _LOCATOR.size
    _, disk, place, disks = _LOCATOR.unpack(_read(file, at, _LOCATOR.size))
    if disk or disks > 1 or place + _END64.size != at:
        raise ArchiveMalformed("the zip64 end record is not where it should be.")
    found = _END64.unpack(_read(file, place, _END64.size))
    if found[0] != b"PK\x06\x06" or found[4] or found[5] or found[6] != found[7]:
        raise ArchiveMalformed("the zip64 end record is broken.")
    return place, found[7], found[8], found[9]


def _central(data: bytes, at: int) -> tuple[ZipEntry, int]:
    try:
        found = _CENTRAL.unpack_from(data, at)
    except struct.error as error:
        raise ArchiveMalformed("the central directory is truncated.") from error
    flags, method, crc, packed, size = found[3], found[4], found[7], found[8], found[9]
    name_length, extra_length, comment_length = found[10:13]
    name_end = at + _CENTRAL.size + name_length
    raw = data[at + _CENTRAL.size : name_end]
    extra = data[name_end : name_end + extra_length]
    end = name_end + extra_length + comment_length
    if found[0] != b"PK\x01\x02" or end > len(data) or found[2] & 0xFF > _NEWEST:
        raise ArchiveMalformed("the central directory is broken.")
    name = _name(raw, flags, extra)
    size, packed, offset = _wide(name, extra, (size, packed, found[16]))
    entry = ZipEntry(name, raw, flags, method, crc, packed, size, offset)
    _check_kind(entry, found[15] >> 16)
    return entry, end


def _check_kind(entry: ZipEntry, mode: int) -> None:
    wanted = (0, stat.S_IFDIR) if entry.is_folder else (0, stat.S_IFREG)
    if stat.S_IFMT(mode) not in wanted:
        raise UnsafeMember(f"{entry.name!r}: only regular files are accepted.")
    if entry.flags & (_ENCRYPTED | _STRONG | _MASKED | _PATCH):
        raise ArchiveMalformed(f"{entry.name!r}: encrypted members are refused.")
    if entry.method not in (STORED, DEFLATED):
        raise ArchiveMalformed(f"{entry.name!r}: members are stored or deflated.")
    if (entry.method == STORED and entry.packed != entry.size) or (entry.is_folder and entry.size):
        raise ArchiveMalformed(f"{entry.name!r}: impossible sizes.")


def _placed(file: BufferedIOBase, entry: ZipEntry, end: int) -> ZipEntry:
    """The entry with the place of its content, if its local header agrees with it."""
    found = _LOCAL.unpack(_read(file, entry.offset, _LOCAL.size))
    flags, method, crc, packed, size, name_length, extra_length = (*found[2:4], *found[6:])
    variable = _read(file, entry.offset + _LOCAL.size, name_length + extra_length)
    extra = variable[name_length:]
    same = (found[0], flags, method) == (MAGIC, entry.flags, entry.method)
    if not same or variable[:name_length] != entry.raw_name:
        raise ArchiveMalformed(f"{entry.name!r}: its local header says something else.")
    _name(entry.raw_name, flags, extra)
    size, packed, _ = _wide(entry.name, extra, (size, packed, 0))
    told, expected = (crc, packed, size), (entry.crc, entry.packed, entry.size)
    begin = entry.offset + _LOCAL.size + name_length + extra_length
    gap = end - begin - entry.packed
    if gap < 0:
        raise ArchiveMalformed(f"{entry.name!r}: overlaps another member.")
    if flags & _STREAMED:
        _check_descriptor(file, entry, begin + entry.packed, gap)
        told = expected if told == (0, 0, 0) else told
    elif gap:
        raise ArchiveMalformed(f"{entry.name!r}: {gap} bytes behind it belong to no member.")
    if told != expected:
        raise ArchiveMalformed(f"{entry.name!r}: its local header says something else.")
    return ZipEntry(**vars(entry) | {"begin": begin})


def _check_descriptor(file: BufferedIOBase, entry: ZipEntry, at: int, gap: int) -> None:
    layout = _DESCRIPTORS.get(gap)
    expected = (entry.crc, entry.packed, entry.size)
    if layout is None or struct.unpack(layout, _read(file, at, gap)) != expected:
        raise ArchiveMalformed(f"{entry.name!r}: its data descriptor says something else.")


def _name(raw: bytes, flags: int, extra: bytes) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
        fields = _extra_fields(name, extra)
        path = fields.get(_UNICODE_PATH)
        if path is not None and path[5:].decode() != name:
            raise ArchiveMalformed(f"{name!r}: has a second name, {path[5:]!r}.")
    except UnicodeDecodeError as error:
        raise UnsafeMember(f"{raw!r}: a member name is not UTF-8.") from error
    return name


def _extra_fields(name: str, extra: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind in fields or at + 4 + size > len(extra):
            raise ArchiveMalformed(f"{name!r}: its extra fields are broken.")
        fields[kind] = extra[at + 4 : at + 4 + size]
        at += 4 + size
    return fields


def _wide(name: str, extra: bytes, given: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and offset, from the zip64 field where 32 bits do not hold them."""
    field = _extra_fields(name, extra).get(_ZIP64, b"")
    found, at = [], 0
    for value in given:
        if value == _FULL:
            if at + 8 > len(field):
                raise ArchiveMalformed(f"{name!r}: its zip64 field is broken.")
            value = struct.unpack_from("<Q", field, at)[0]
            at += 8
        found.append(value)
    return found[0], found[1], found[2]


def _read(file: BufferedIOBase, at: int, size: int) -> bytes:
    if at < 0:
        raise ArchiveMalformed("a header lies in front of the archive.")
    file.seek(at)
    data = file.read(size)
    if len(data) != size:
        raise ArchiveMalformed("truncated zip archive.")
    return data
