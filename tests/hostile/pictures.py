"""Pictures that are too large, too much, or not only pictures."""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from tests.hostile.inputs import DataInput
from tests.hostile.records import DOCUMENT, PICTURE, archive, still

FORMAT, LARGE = "image_format", "image_too_large"
MALFORMED, TRAILING = "image_malformed", "trailing_data"
SIGNATURE = PICTURE[:8]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def head(width: int = 8, height: int = 8, depth: int = 8, colour: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))


END = chunk(b"IEND", b"")
ROWS = chunk(b"IDAT", zlib.compress((b"\0" + b"abc" * 8) * 8))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


def animated(form: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, form, save_all=True, append_images=frames[1:])
    return out.getvalue()


def zip_behind(content: bytes) -> bytes:
    return content + archive({"evil.txt": b"x"})


def wide_jpeg() -> bytes:
    """A small picture whose frame says 65,500 x 65,500."""
    content = bytearray(still("JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">2H", 65500, 65500)
    return bytes(content)


def frames_of_jpeg() -> bytes:
    content = still("JPEG")
    at = content.index(b"\xff\xc0")
    length = struct.unpack_from(">H", content, at + 2)[0]
    return content[:at] + content[at : at + 2 + length] + content[at:]


def wide_webp() -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff" * 6
    body += b"VP8L" + struct.pack("<I", 6) + b"\x2f" + b"\xff" * 4 + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def text_bomb(kind: bytes = b"zTXt", front: bytes = b"k\0\0") -> bytes:
    return png(head(), chunk(kind, front + zlib.compress(bytes(64 * 2**20), 9)), ROWS, END)


def profiled_webp() -> bytes:
    """A profile of megabytes beside a picture of 8 x 8."""
    profile = b"ICCP" + struct.pack("<I", 2**21) + bytes(2**21)
    whole = b"WEBP" + profile + still("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def broken_crc() -> bytes:
    content = bytearray(PICTURE)
    content[-20] ^= 1
    return bytes(content)


def undecodable() -> bytes:
    """Sound parts around rows that are none: only decoding finds out."""
    return png(head(), chunk(b"IDAT", b"garbage"), END)


def with_picture(content: bytes) -> bytes:
    return archive({"data.json": DOCUMENT, "images/a.png": content})


_INPUTS: list[tuple[str, Callable[[], bytes], str]] = [
    ("pixel_bomb", lambda: png(head(30_000, 30_000), ROWS, END), LARGE),
    ("text_bomb", text_bomb, LARGE),
    ("international_text_bomb", lambda: text_bomb(b"iTXt", b"k\0\1\0\0\0"), LARGE),
    ("profile_of_megabytes", profiled_webp, LARGE),
    ("profile_bomb", lambda: text_bomb(b"iCCP"), LARGE),
    (
        "text_of_megabytes",
        lambda: png(head(), chunk(b"tEXt", b"k\0" + bytes(2**21)), ROWS, END),
        LARGE,
    ),
    ("wide_jpeg", wide_jpeg, LARGE),
    ("wide_webp", wide_webp, LARGE),
    ("gif", lambda: still("GIF", mode="P"), FORMAT),
    ("tiff", lambda: still("TIFF"), FORMAT),
    ("bmp", lambda: still("BMP"), FORMAT),
    ("psd", lambda: b"8BPS\0\1" + bytes(64), FORMAT),
    ("fits", lambda: b"SIMPLE  =                    T".ljust(2880), FORMAT),
    ("eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", FORMAT),
    ("svg", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', FORMAT),
    ("html", lambda: b"<html><script>alert(1)</script></html>", FORMAT),
    ("empty", lambda: b"", FORMAT),
    ("animated_png", lambda: animated("PNG"), FORMAT),
    ("animated_webp", lambda: animated("WEBP"), FORMAT),
    ("wrong_extension", lambda: still("JPEG"), FORMAT),
    ("two_frames", frames_of_jpeg, FORMAT),
    ("zip_behind_png", lambda: zip_behind(PICTURE), TRAILING),
    ("zip_behind_jpeg", lambda: zip_behind(still("JPEG")), TRAILING),
    ("zip_behind_webp", lambda: zip_behind(still("WEBP")), TRAILING),
    ("second_picture_behind", lambda: PICTURE + PICTURE, TRAILING),
    ("truncated_png", lambda: PICTURE[:-20], MALFORMED),
    ("truncated_jpeg", lambda: still("JPEG")[:-20], MALFORMED),
    ("truncated_webp", lambda: still("WEBP")[:-6], MALFORMED),
    ("wrong_checksum", broken_crc, MALFORMED),
    ("without_header", lambda: png(ROWS, END), MALFORMED),
    ("two_headers", lambda: png(head(), head(9, 9), ROWS, END), MALFORMED),
    ("without_pixels", lambda: png(head(0, 8), ROWS, END), MALFORMED),
    ("without_rows", lambda: png(head(), END), MALFORMED),
    ("garbage_for_rows", undecodable, MALFORMED),
    ("too_few_rows", lambda: png(head(8, 8000), ROWS, END), MALFORMED),
]
PICTURES = [
    DataInput(f"image_{name}", lambda make=make: with_picture(make()), code)  # type: ignore[misc]
    for name, make, code in _INPUTS
]
