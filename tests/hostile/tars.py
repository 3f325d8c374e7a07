"""Tar archives written header by header."""

import gzip
import tarfile

from tests.hostile.inputs import DataInput
from tests.hostile.records import DATASET, DOCUMENT, PICKLE, PICTURE
from tests.hostile.zips import BOMB, MALFORMED, UNSAFE, good_zip

END = bytes(1024)


def entry(name: bytes, content: bytes = b"", kind: bytes = b"0", **changes: bytes) -> bytes:
    """One member, its header's checksum made right."""
    fields = {
        "name": name.ljust(100, b"\0"),
        "mode": b"0000644\0",
        "owner": b"0000000\0" * 2,
        "size": b"%011o\0" % len(content),
        "time": b"00000000000\0",
        "sum": b" " * 8,
        "kind": kind,
        "link": bytes(100),
        "magic": b"ustar\x0000",
        "rest": bytes(247),
    } | changes
    head = b"".join(fields.values()).ljust(512, b"\0")[:512]
    head = head.replace(b" " * 8, b"%06o\0 " % sum(head), 1)
    return head + content + bytes(-len(content) % 512)


GOOD = entry(b"data.json", DOCUMENT) + entry(b"images/a.png", PICTURE)


def tar(*entries: bytes, end: bytes = END) -> bytes:
    return GOOD + b"".join(entries) + end


def pax(**records: bytes) -> bytes:
    """An extended header; each record tells its own length."""
    body = b""
    for key, value in records.items():
        rest = b" " + key.replace("__", ".").encode() + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(b"%d" % length) + len(rest) != length:
            length += 1
        body += b"%d" % length + rest
    return entry(b"pax", body, b"x")


def long_name(name: bytes) -> bytes:
    return entry(b"././@LongLink", name + b"\0", b"L")


def picture(name: bytes = b"images/b.png") -> bytes:
    return entry(name, PICTURE)


def link(kind: bytes) -> bytes:
    return entry(b"images/b.png", kind=kind, link=b"/etc/passwd".ljust(100, b"\0"))


def gzipped_bomb() -> bytes:
    return gzip.compress(tar(entry(b"images/b.png", bytes(80 * 2**20))), 9, mtime=0)


def webdataset(suffix: bytes = b"cls", content: bytes = b"1") -> bytes:
    """Records of one file each, as the library of that name has them."""
    files = ((b"json", DOCUMENT[1:-1]), (b"png", PICTURE), (suffix, content))
    members = (entry(b"%d.%s" % (n, kind), text) for n in range(3) for kind, text in files)
    return b"".join(members) + END


def wrong_sum() -> bytes:
    bad = bytearray(picture())
    bad[0] ^= 1
    return tar(bytes(bad))


def _inputs() -> list[tuple[str, object, str]]:
    return [
        ("symlink", lambda: tar(link(tarfile.SYMTYPE)), UNSAFE),
        ("hardlink", lambda: tar(link(tarfile.LNKTYPE)), UNSAFE),
        ("character_device", lambda: tar(link(tarfile.CHRTYPE)), UNSAFE),
        ("block_device", lambda: tar(link(tarfile.BLKTYPE)), UNSAFE),
        ("fifo", lambda: tar(link(tarfile.FIFOTYPE)), UNSAFE),
        ("contiguous", lambda: tar(link(tarfile.CONTTYPE)), UNSAFE),
        ("sparse", lambda: tar(link(tarfile.GNUTYPE_SPARSE)), UNSAFE),
        ("sparse_by_pax", lambda: tar(pax(GNU__sparse__major=b"1"), picture()), UNSAFE),
        ("traversal", lambda: tar(picture(b"../x.png")), UNSAFE),
        ("traversal_by_pax", lambda: tar(pax(path=b"../x.png"), picture()), UNSAFE),
        ("absolute", lambda: tar(picture(b"/etc/passwd")), UNSAFE),
        ("nul_by_pax", lambda: tar(pax(path=b"a.png\0b"), picture()), UNSAFE),
        ("nul_in_name", lambda: tar(picture(b"a.png\0b")), UNSAFE),
        ("long_name_by_pax", lambda: tar(pax(path=b"a" * 300), picture()), UNSAFE),
        ("long_name_by_gnu", lambda: tar(long_name(b"a" * 300), picture()), UNSAFE),
        ("case_collision", lambda: tar(picture(b"IMAGES/A.png")), UNSAFE),
        ("nfc_collision", lambda: tar(*map(picture, ("é".encode(), "e\u0301".encode()))), UNSAFE),
        ("name_not_utf8", lambda: tar(picture(b"\xff.png")), UNSAFE),
        (
            "gigabyte_of_pax",
            lambda: tar(entry(b"p", b"", b"x", size=b"%011o\0" % 2**30)),
            MALFORMED,
        ),
        ("path_twice", lambda: tar(pax_twice(), picture()), MALFORMED),
        (
            "global_path",
            lambda: tar(entry(b"g", b"15 path=x/y.png\n"[:-1] + b"\n", b"g")),
            MALFORMED,
        ),
        ("two_names", lambda: tar(long_name(b"a.png"), pax(path=b"b.png"), picture()), MALFORMED),
        ("prefix_that_some_see", lambda: tar(hidden_prefix()), MALFORMED),
        ("impossible_mode", lambda: tar(entry(b"a.png", mode=b"garbage\0")), MALFORMED),
        ("pax_without_member", lambda: tar(pax(path=b"a.png")), MALFORMED),
        ("broken_pax", lambda: tar(entry(b"p", b"99 path=x\n", b"x"), picture()), MALFORMED),
        ("size_by_pax", lambda: tar(pax(size=b"9" * 17), picture()), BOMB),
        ("negative_size", lambda: tar(entry(b"n.png", size=b"\xff" * 12)), MALFORMED),
        ("folder_with_content", lambda: tar(entry(b"f/", b"x", b"5")), MALFORMED),
        ("wrong_sum", wrong_sum, MALFORMED),
        ("truncated", lambda: tar(picture())[:-1400], MALFORMED),
        ("without_end", lambda: tar(end=b""), MALFORMED),
        ("bytes_behind", lambda: tar(end=END + b"more".ljust(512, b"\0")), MALFORMED),
        ("nested_zip", lambda: tar(entry(b"inner.zip", good_zip())), BOMB),
        ("nested_gzip", lambda: tar(entry(b"b.png", gzip.compress(tar(), mtime=0))), BOMB),
        ("webdataset", webdataset, DATASET),
        ("webdataset_of_pickles", lambda: webdataset(b"pyd", b"\x80\x04N."), PICKLE),
        ("webdataset_of_arrays", lambda: webdataset(b"npy", b"\x93NUMPY\1\0"), PICKLE),
        ("gzipped_bomb", gzipped_bomb, BOMB),
        ("gzip_truncated", lambda: gzip.compress(tar(), mtime=0)[:-40], MALFORMED),
        ("bytes_behind_gzip", lambda: gzip.compress(tar(), mtime=0) + b"more", MALFORMED),
        ("two_gzips", lambda: gzip.compress(tar(), mtime=0) * 2, MALFORMED),
    ]


def hidden_prefix() -> bytes:
    """A prefix that tarfile puts in front of the name, and GNU tar does not."""
    rest = bytes(80) + b"../x".ljust(167, b"\0")
    return entry(b"b.png", magic=b"ustar  \0", rest=rest)


def pax_twice() -> bytes:
    return entry(b"p", b"10 path=a\n10 path=b\n", b"x")


TARS = [DataInput(f"tar_{name}", make, code) for name, make, code in _inputs()]  # type: ignore[arg-type]
