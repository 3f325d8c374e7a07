"""The process that decodes pictures: `python -m disp_engine.data.developer`, pipes in and out.

It has little memory, little time for each picture, no network and no right to write a file. In
comes a length of eight bytes and a picture, out goes a line of JSON and, if that has a size, RGB.
"""

import io
import json
import struct
import sys
import warnings
import zlib
from typing import BinaryIO

from PIL import Image, ImageFile, ImageOps

from disp_engine.data.pictures import MAX_PIXELS, check_rows
from disp_engine.errors import PictureError
from disp_engine.isolation import leave_network, limit_memory, limit_time

FORMATS = ("PNG", "JPEG", "WEBP")
LENGTH = struct.Struct("<Q")
MEMORY = 2 * 2**30
SECONDS = 20
LONGEST_REASON = 300
UNREADABLE = (
    OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError,
    PictureError,
)  # fmt: skip
"""What Pillow's readers raise on files that are not pictures, or no longer."""
_HIGH_BYTE = {"I;16": 1, "I;16L": 1, "I;16B": 0}


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
        if image.mode in _HIGH_BYTE:
            high = image.tobytes()[_HIGH_BYTE[image.mode] :: 2]
            grey = Image.frombytes("L", image.size, high)
            grey.info = image.info
            return _upright(grey).convert("RGB")
        return _upright(image).convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)


def _answer(content: bytes, sink: BinaryIO) -> None:
    try:
        image = develop(content)
    except UNREADABLE as error:
        known = isinstance(error, PictureError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"[:LONGEST_REASON]
        sink.write(json.dumps({"reason": reason}).encode() + b"\n")
        return
    sink.write(json.dumps({"size": image.size}).encode() + b"\n")
    sink.write(image.tobytes())


if __name__ == "__main__":
    main()
