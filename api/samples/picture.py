"""A map of saliency as a PNG in shades of grey, the most salient cell white."""

import struct
import zlib
from collections.abc import Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CELL = 16
"""Pixels on a side of a cell."""
GREY_8_BIT = (8, 0, 0, 0, 0)


def grey_png(values: Sequence[Sequence[float]]) -> bytes:
    """Return rows of values in [0, 1] as a PNG of CELL x CELL pixels for each."""
    lines = [b"".join(bytes([round(255 * value)]) * CELL for value in row) for row in values]
    pixels = b"".join((b"\x00" + line) * CELL for line in lines)  # 0: the line is not filtered
    size = struct.pack(">II5B", len(lines[0]), CELL * len(lines), *GREY_8_BIT)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum
