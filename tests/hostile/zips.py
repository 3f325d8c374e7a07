"""Zip archives with every field under our hands, and those that lie with them."""

import stat
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from tests.hostile.inputs import DataInput
from tests.hostile.records import DOCUMENT, PICTURE

MALFORMED, BOMB, UNSAFE = "archive_malformed", "archive_bomb", "archive_unsafe_member"
NAME = b"images/a.png"
UTF8, STREAMED = 1 << 11, 1 << 3


@lru_cache(maxsize=8)
def deflated(content: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(content) + squeeze.flush()


@dataclass(frozen=True)
class Entry:
    """A member; each `local_` stands in the local header where it is not None."""

    name: bytes
    content: bytes
    deflate: bool = False
    method: int | None = None
    flags: int = UTF8
    mode: int = 0o100644
    extra: bytes = b""
    size: int | None = None
    crc: int | None = None
    behind: bytes = b""
    local_name: bytes | None = None
    local_size: int | None = None
    local_method: int | None = None
    version: int = 20

    @property
    def packed(self) -> bytes:
        return deflated(self.content) if self.deflate else self.content

    def facts(self) -> tuple[int, int, int]:
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        size = len(self.content) if self.size is None else self.size
        return crc, len(self.packed), size

    def local(self) -> bytes:
        crc, packed, size = (0, 0, 0) if self.flags & STREAMED else self.facts()
        size = size if self.local_size is None else self.local_size
        name = self.name if self.local_name is None else self.local_name
        method = self._method() if self.local_method is None else self.local_method
        lengths = (len(name), len(self.extra))
        head = struct.pack(
            "<4s5H3I2H", b"PK\3\4", 20, self.flags, method, 0, 33, crc, packed, size, *lengths
        )
        return head + name + self.extra + self.packed + self.behind

    def central(self, offset: int) -> bytes:
        lengths = (len(self.name), len(self.extra), 0, 0, 0)
        head = struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 3 << 8 | 20, self.version, self.flags, self._method(), 0, 33,
            *self.facts(), *lengths, self.mode << 16, offset,
        )  # fmt: skip
        return head + self.name + self.extra

    def _method(self) -> int:
        return (8 if self.deflate else 0) if self.method is None else self.method


@dataclass(frozen=True)
class Archive:
    """Entries between what is in front of them and what is behind."""

    entries: Sequence[Entry]
    front: bytes = b""
    comment: bytes = b""
    behind: bytes = b""
    count: int | None = None
    disk: int = 0

    def build(self) -> bytes:
        body, directory = self.front, b""
        for entry in self.entries:
            directory += entry.central(len(body))
            body += entry.local()
        return body + directory + self.end(len(directory), len(body)) + self.comment + self.behind

    def end(self, size: int, start: int) -> bytes:
        count = len(self.entries) if self.count is None else self.count
        lengths = (size, start, len(self.comment))
        return struct.pack("<4s4H2IH", b"PK\5\6", self.disk, 0, count, count, *lengths)


GOOD = (Entry(b"data.json", DOCUMENT), Entry(NAME, PICTURE))


def good_zip() -> bytes:
    return Archive(GOOD).build()


def with_entry(*entries: Entry, **changes: object) -> bytes:
    return Archive((*GOOD, *entries), **changes).build()  # type: ignore[arg-type]


def changed(**changes: object) -> bytes:
    """The good archive with another picture entry."""
    return Archive((GOOD[0], replace(GOOD[1], **changes))).build()  # type: ignore[arg-type]


def named(*names: bytes) -> bytes:
    return with_entry(*(Entry(name, PICTURE) for name in names))


def many(count: int) -> bytes:
    body = directory = b""
    pieces, entries, at = [], [], 0
    for number in range(count):
        entry = Entry(b"%06d" % number, b"")
        entries.append(entry.central(at))
        pieces.append(entry.local())
        at += len(pieces[-1])
    body, directory = b"".join(pieces), b"".join(entries)
    place = len(body) + len(directory)
    wide = struct.pack(
        "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(body)
    )
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, place, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, *[0xFFFFFFFF] * 2, 0)
    return body + directory + wide + locator + end


def overlapping() -> bytes:
    """David Fifield's: one kernel, to which every entry of the directory points."""
    kernel = Entry(b"000.png", bytes(2**20), deflate=True)
    body = b"".join(entry.local() for entry in GOOD) + kernel.local()
    offsets = [0, len(GOOD[0].local())] + [len(body) - len(kernel.local())] * 200
    entries = (*GOOD, *(replace(kernel, name=b"%03d.png" % n) for n in range(200)))
    directory = b"".join(e.central(at) for e, at in zip(entries, offsets, strict=True))
    return body + directory + Archive(entries).end(len(directory), len(body))


def quoted() -> bytes:
    """The second member lies within the first one's stored content."""
    inner = Entry(b"images/b.png", PICTURE)
    outer = Entry(b"images/c.png", inner.local())
    body = b"".join(entry.local() for entry in GOOD)
    at = len(body)
    inside = at + len(outer.local()) - len(outer.content)
    entries = (*GOOD, outer, inner)
    offsets = (0, len(GOOD[0].local()), at, inside)
    directory = b"".join(e.central(o) for e, o in zip(entries, offsets, strict=True))
    whole = body + outer.local()
    return whole + directory + Archive(entries).end(len(directory), len(whole))


def hidden_in_front() -> bytes:
    return Archive(GOOD, front=Entry(b"hidden.png", PICTURE).local()).build()


def extra(kind: int, body: bytes) -> bytes:
    return struct.pack("<2H", kind, len(body)) + body


def huge_by_zip64() -> bytes:
    wide = extra(1, struct.pack("<Q", 2**62))
    return with_entry(Entry(b"images/b.png", PICTURE, deflate=True, size=0xFFFFFFFF, extra=wide))


def lying_descriptor() -> bytes:
    told = struct.pack("<4s3I", b"PK\7\x08", 1, len(PICTURE), len(PICTURE))
    return with_entry(Entry(b"images/b.png", PICTURE, flags=UTF8 | STREAMED, behind=told))


def comment_with_an_end() -> bytes:
    return with_entry(comment=Archive(()).end(0, 0))


def _inputs() -> list[tuple[str, object, str]]:
    zeros = bytes(2**20)
    return [
        ("bomb_by_ratio", lambda: with_entry(Entry(b"b.png", zeros * 30, deflate=True)), BOMB),
        (
            "bomb_by_sum",
            lambda: with_entry(*(Entry(b"%d.png" % n, zeros, deflate=True) for n in range(80))),
            BOMB,
        ),
        ("bomb_by_count", lambda: many(200_001), BOMB),
        ("nested_zip", lambda: with_entry(Entry(b"inner.zip", good_zip())), BOMB),
        ("nested_gzip_as_png", lambda: with_entry(Entry(b"b.png", b"\x1f\x8b\x08\0" * 8)), BOMB),
        ("nested_7z", lambda: with_entry(Entry(b"b", b"7z\xbc\xaf\x27\x1c" + zeros[:90])), BOMB),
        ("nested_rar", lambda: with_entry(Entry(b"b", b"Rar!\x1a\x07" + zeros[:90])), BOMB),
        ("nested_bzip2", lambda: with_entry(Entry(b"b", b"BZh91AY&SY" + zeros[:90])), BOMB),
        ("nested_zstandard", lambda: with_entry(Entry(b"b", b"\x28\xb5\x2f\xfd" * 9)), BOMB),
        ("nested_xz", lambda: with_entry(Entry(b"b", b"\xfd7zXZ\0" + zeros[:90])), BOMB),
        ("bomb_by_zip64_size", huge_by_zip64, BOMB),
        ("overlapping", overlapping, MALFORMED),
        ("quoted", quoted, MALFORMED),
        ("size_too_small", lambda: changed(deflate=True, size=5), MALFORMED),
        ("size_too_large", lambda: changed(deflate=True, size=999), MALFORMED),
        ("stored_sizes_differ", lambda: changed(size=5), MALFORMED),
        ("wrong_crc", lambda: changed(crc=1), MALFORMED),
        ("local_name_differs", lambda: changed(local_name=b"images/z.png"), MALFORMED),
        ("local_size_differs", lambda: changed(local_size=7), MALFORMED),
        ("local_method_differs", lambda: changed(local_method=8), MALFORMED),
        ("encrypted", lambda: changed(flags=UTF8 | 1), MALFORMED),
        ("bzip2", lambda: changed(method=12), MALFORMED),
        ("extra_twice", lambda: changed(extra=extra(9, b"a") + extra(9, b"b")), MALFORMED),
        ("extra_cut_off", lambda: changed(extra=b"\x09\0\xff\xff"), MALFORMED),
        (
            "second_name",
            lambda: changed(extra=extra(0x7075, b"\1\0\0\0\0images/z.png")),
            MALFORMED,
        ),
        ("lying_descriptor", lying_descriptor, MALFORMED),
        ("hidden_between", lambda: changed(behind=b"hidden bytes"), MALFORMED),
        ("hidden_in_front", hidden_in_front, MALFORMED),
        ("bytes_behind", lambda: with_entry(behind=b"more"), MALFORMED),
        ("two_ends", comment_with_an_end, MALFORMED),
        ("directory_counts_less", lambda: with_entry(count=1), MALFORMED),
        ("directory_counts_more", lambda: with_entry(count=9), MALFORMED),
        ("version_of_the_future", lambda: changed(version=99), MALFORMED),
        ("end_in_the_comment", lambda: with_entry(comment=b"PK\5\6 and more"), MALFORMED),
        ("several_parts", lambda: with_entry(disk=1), MALFORMED),
        ("truncated", lambda: good_zip()[:-30], MALFORMED),
        ("truncated_in_the_middle", lambda: good_zip()[: len(good_zip()) // 2], MALFORMED),
        (
            "deflate_cut_off",
            lambda: with_entry(Entry(b"b.png", b"\x05", method=8, size=99)),
            MALFORMED,
        ),
        ("symlink", lambda: changed(content=b"/etc/passwd", mode=stat.S_IFLNK | 0o777), UNSAFE),
        ("device", lambda: changed(mode=stat.S_IFCHR | 0o666), UNSAFE),
        ("fifo", lambda: changed(mode=stat.S_IFIFO | 0o666), UNSAFE),
        ("traversal", lambda: named(b"../../etc/cron.d/x"), UNSAFE),
        ("traversal_inside", lambda: named(b"images/../../x.png"), UNSAFE),
        ("absolute", lambda: named(b"/etc/passwd"), UNSAFE),
        ("backslash", lambda: named(b"..\\x.png"), UNSAFE),
        ("drive", lambda: named(b"C:/x.png"), UNSAFE),
        ("nul", lambda: named(b"images/b.png\0.txt"), UNSAFE),
        ("long_name", lambda: named(b"a" * 256), UNSAFE),
        ("same_name_twice", lambda: named(NAME), UNSAFE),
        ("case_collision", lambda: named(b"Images/A.PNG"), UNSAFE),
        ("sharp_s_collision", lambda: named("straße".encode(), b"STRASSE"), UNSAFE),
        ("nfc_collision", lambda: named("é".encode(), "e\u0301".encode()), UNSAFE),
        ("file_and_folder", lambda: named(b"images"), UNSAFE),
        ("line_break_in_name", lambda: named(b"a\nb.png"), UNSAFE),
        ("bidi_in_name", lambda: named("a\u202egnp.exe".encode()), UNSAFE),
        ("name_not_utf8", lambda: named(b"\xff\xfe.png"), UNSAFE),
        ("empty_part_of_name", lambda: named(b"a//b.png"), UNSAFE),
    ]


ZIPS = [DataInput(f"zip_{name}", make, code) for name, make, code in _inputs()]  # type: ignore[arg-type]
