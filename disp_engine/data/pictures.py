"""PNG, JPEG and WebP judged by their structure, before any decoder sees them.

A picture is one still image from its first byte to its last: nothing in front, nothing behind,
nothing that moves, no more pixels and no more text than a picture needs.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from disp_engine.errors import PictureFormat, PictureMalformed, PictureTooLarge, TrailingData

MAX_PIXELS = 32_000_000
MAX_BYTES = 64 * 2**20
MAX_TEXT = 2**20
"""Bytes of text and profiles, unpacked."""
PADDING = 4096
"""Zeros that may follow a picture: cameras and file systems leave them."""
EXTENSIONS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG",
    ".webp": "WEBP",
}  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Numbers for each pixel, by PNG's type of colour."""
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
"""First column and row of each pass of an interlaced PNG, and its steps to the right and down."""
_ENTROPY_END = re.compile(rb"\xff+(?![\x00\xff\xd0-\xd7])")
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # tables among the codes of frames


def check_picture(content: bytes) -> str:
    """Return the format's name, or raise a PictureError that says what is wrong."""
    if len(content) > MAX_BYTES:
        raise PictureTooLarge(f"the picture takes more than {MAX_BYTES} bytes")
    name, find_end = _format(content)
    try:
        end = find_end(content)
    except (struct.error, IndexError) as error:
        raise PictureMalformed("the picture is truncated") from error
    behind = content[end:]
    if len(behind) > PADDING or any(behind):
        raise TrailingData(f"{len(behind)} bytes follow the end of the picture")
    return name


def _format(content: bytes) -> tuple[str, Callable[[bytes], int]]:
    if content.startswith(_PNG):
        return "PNG", _png
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG", _jpeg
    if content.startswith(b"RIFF"):
        return "WEBP", _webp
    raise PictureFormat("the picture is no PNG, JPEG or WebP")


def _check_size(width: int, height: int) -> None:
    if not width or not height:
        raise PictureMalformed("the picture has no pixels")
    if width * height > MAX_PIXELS:
        raise PictureTooLarge(f"the picture has more than {MAX_PIXELS} pixels")


def _png(content: bytes) -> int:
    """Return where the picture ends."""
    texts = 0
    for number, (kind, body, end) in enumerate(_png_chunks(content)):
        if (kind == b"IHDR") != (number == 0):
            raise PictureMalformed("the picture's header is not its first part, or not its only")
        if kind == b"IHDR":
            _check_size(*struct.unpack_from(">2I", body))
        elif kind in (b"acTL", b"fcTL", b"fdAT"):
            raise PictureFormat("the picture is animated")
        elif kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"):
            texts += len(body) if kind in (b"tEXt", b"eXIf") else _unpacked_text(kind, body)
            if texts > MAX_TEXT:
                raise PictureTooLarge(f"the picture carries more than {MAX_TEXT} bytes of text")
        elif kind == b"IEND":
            return end
    raise PictureMalformed("the picture is truncated")


def check_rows(content: bytes) -> None:
    """Refuse a PNG with fewer rows than it says: decoders make up the rest."""
    if not content.startswith(_PNG):
        return
    inflate, found, wanted = zlib.decompressobj(), 0, 0
    for kind, body, _ in _png_chunks(content):
        if kind == b"IHDR":
            wanted = _unpacked_rows(body)
        while kind == b"IDAT" and body and found < wanted:
            try:
                found += len(inflate.decompress(body, 1 << 20))
            except zlib.error as error:
                raise PictureMalformed("the picture's rows are broken") from error
            body = inflate.unconsumed_tail
    if found < wanted:
        raise PictureMalformed("the picture has fewer rows than it says")


def _unpacked_rows(head: bytes) -> int:
    """Bytes of all rows, each with its filter's number in front."""
    width, height, depth, colour, interlaced = struct.unpack(">2I2B2xB", head)
    if colour not in _CHANNELS:
        raise PictureMalformed("the picture has impossible colours")
    bits = depth * _CHANNELS[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    return sum(
        -(-(height - y) // down) * (1 + (-(-(width - x) // right) * bits + 7) // 8)
        for x, y, right, down in passes
        if width > x and height > y
    )


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    at = len(_PNG)
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + size
        body = content[at + 8 : at + 8 + size]
        (crc,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(body, zlib.crc32(kind)) != crc:
            raise PictureMalformed(f"the picture's part {kind!r} has a wrong checksum")
        yield kind, body, end
        at = end


def _unpacked_text(kind: bytes, body: bytes) -> int:
    """Bytes of a text or a profile when it is unpacked, no more than one beyond the limit."""
    rest = body.partition(b"\0")[2]
    if kind == b"iTXt":
        if rest[:1] != b"\1":
            return len(body)
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        rest = rest[1:]
    try:
        return len(zlib.decompressobj().decompress(rest, MAX_TEXT + 1))
    except zlib.error as error:
        raise PictureMalformed(f"the picture's part {kind!r} is broken") from error


def _jpeg(content: bytes) -> int:
    at, sized = 2, False
    while True:
        if content[at] != 0xFF:
            raise PictureMalformed("the picture is broken between its parts")
        while content[at] == 0xFF:
            at += 1
        marker = content[at]
        at += 1
        if marker == 0xD9:
            if not sized:
                raise PictureMalformed("the picture has no frame")
            return at
        (length,) = struct.unpack_from(">H", content, at)
        if length < 2 or marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            raise PictureMalformed("the picture is broken between its parts")
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            if sized:
                raise PictureFormat("the picture has several frames")
            sized = True
            height, width = struct.unpack_from(">2H", content, at + 3)
            _check_size(width, height)
        at += length
        if marker == 0xDA:
            found = _ENTROPY_END.search(content, at)
            if found is None or found.end() >= len(content):
                raise PictureMalformed("the picture is truncated")
            at = found.start()


def _webp(content: bytes) -> int:
    size, form = struct.unpack_from("<I4s", content, 4)
    if form != b"WEBP":
        raise PictureFormat("the picture is no PNG, JPEG or WebP")
    end: int = 8 + size + size % 2
    if end > len(content) + size % 2:
        raise PictureMalformed("the picture is truncated")
    at, sized, images, texts = 12, False, 0, 0
    while at < 8 + size:
        kind, length = struct.unpack_from("<4sI", content, at)
        body = at + 8
        if body + length > 8 + size:
            raise PictureMalformed("the picture is truncated")
        if kind in (b"ANIM", b"ANMF") or (kind == b"VP8X" and content[body] & 2):
            raise PictureFormat("the picture is animated")
        if kind in (b"EXIF", b"XMP ", b"ICCP"):
            texts += length
        if kind in (b"VP8X", b"VP8 ", b"VP8L"):
            _check_size(*_webp_size(kind, content, body))
            sized, images = True, images + (kind != b"VP8X")
        at = body + length + length % 2
    if texts > MAX_TEXT:
        raise PictureTooLarge(f"the picture carries more than {MAX_TEXT} bytes of text")
    if not sized or images != 1:
        raise PictureMalformed("the picture has no frame, or several")
    return min(end, len(content))


def _webp_size(kind: bytes, content: bytes, at: int) -> tuple[int, int]:
    if kind == b"VP8X":
        wide = int.from_bytes(content[at + 4 : at + 7], "little")
        high = int.from_bytes(content[at + 7 : at + 10], "little")
        return wide + 1, high + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, at + 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    wide, high = struct.unpack_from("<2H", content, at + 6)
    return wide & 0x3FFF, high & 0x3FFF
