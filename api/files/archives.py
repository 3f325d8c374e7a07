"""What a file's first bytes say it is; nothing is opened or extracted here."""

import tarfile
import zlib
from typing import BinaryIO, Literal

ArchiveKind = Literal["zip", "tar", "tar.gz"]
ZIP_MAGIC = b"PK\x03\x04"
GZIP_MAGIC = b"\x1f\x8b"
HEAD = 65536


def sniff(stream: BinaryIO) -> ArchiveKind | None:
    """Return the archive's kind, None if it is none; leaves the stream at its beginning."""
    stream.seek(0)
    head = stream.read(HEAD)
    stream.seek(0)
    if head.startswith(ZIP_MAGIC):
        return "zip"
    if head.startswith(GZIP_MAGIC):
        return "tar.gz" if _is_tar(_inflate(head)) else None
    return "tar" if _is_tar(head) else None


def _inflate(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, tarfile.BLOCKSIZE)
    except zlib.error:
        return b""


def _is_tar(head: bytes) -> bool:
    """Check the first header's own checksum, which tars of every age have."""
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
