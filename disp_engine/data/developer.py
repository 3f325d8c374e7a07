"""The process that decodes pictures: `python -m disp_engine.data.developer`, pipes in and out.

It has little memory, little time for each picture, no network and no right to write a file. In
comes a length of eight bytes and a picture, out goes a line of JSON and, if that has a size, RGB.
"""

import io
import json
import struct
import sys
import warnings
from typing import BinaryIO

from PIL import Image, ImageFile

from disp_engine.data.pictures import MAX_PIXELS, check_rows
from disp_engine.errors import PictureError
from disp_engine.isolation import leave_network, limit_memory, limit_time

FORMATS = ("PNG", "JPEG", "WEBP")
LENGTH = struct.Struct("<Q")
MEMORY = 2 * 2**30
SECONDS = 20
LONGEST_REASON = 300
_HIGH_BYTE = {"I;16": 1, "I;16L": 1, "I;16B": 0}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


def main() -> None:
    """Decode until there is nothing more to read."""
    prepare()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(LENGTH.size):
        limit_time(SECONDS)
        _answer(source.read(LENGTH.unpack(head)[0]), sink)
        sink.flush()


def prepare() -> None:
    """Give up what decoding does not need; Pillow is to refuse rather than to warn or to guess."""
    Image.preinit()
    leave_network()
    limit_memory(MEMORY)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def develop(content: bytes) -> Image.Image:
    """Decode to RGB as training code does, but upright.

    Alpha is dropped and palettes are looked up, as `convert("RGB")` has it; of 16-bit grey the high
    byte counts; CMYK becomes RGB by Pillow's formula, for colour profiles are not applied.
    """
    check_rows(content)
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.load()
        pixels = _eight_bits(image).convert("RGB")
        turn = _TURNS.get(_orientation(image) or 0)
        return pixels if turn is None else pixels.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode not in _HIGH_BYTE:
        return image
    return Image.frombytes("L", image.size, image.tobytes()[_HIGH_BYTE[image.mode] :: 2])


def _orientation(image: Image.Image) -> int | None:
    """What EXIF says; broken EXIF says nothing and is no reason to lose a sound picture."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:
        return None
    return found if isinstance(found, int) else None


def _answer(content: bytes, sink: BinaryIO) -> None:
    try:
        image = develop(content)
    except Exception as error:  # whatever a decoder raises on such bytes, they are no picture
        known = isinstance(error, PictureError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"[:LONGEST_REASON]
        sink.write(json.dumps({"reason": reason}).encode() + b"\n")
        return
    sink.write(json.dumps({"size": image.size}).encode() + b"\n")
    sink.write(image.tobytes())


if __name__ == "__main__":
    main()
