"""How pictures are read: each rule with a picture made for it, through the process that decodes."""

import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from disp_engine.data import darkroom as module
from disp_engine.data.darkroom import Darkroom, darkroom
from disp_engine.data.developer import MEMORY
from disp_engine.data.pictures import PADDING, _unpacked_rows, check_picture
from disp_engine.errors import PictureMalformed, TrailingData

RED, BLUE = (255, 0, 0), (0, 0, 255)
ORIENTATION = 0x0112


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def noise(mode: str, size: tuple[int, int] = (20, 13)) -> Image.Image:
    """Different pixels everywhere."""
    count = len(Image.new(mode, size).tobytes())
    return Image.frombytes(mode, size, bytes(n * 37 % 251 for n in range(count)))


def plainly(content: bytes) -> bytes:
    """The pixels as they were read before pictures had a process of their own."""
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *(("PNG", mode) for mode in ("RGB", "L", "RGBA", "LA", "1")),
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    ],
)
def test_a_good_picture_gives_the_pixels_that_training_code_sees(form: str, mode: str) -> None:
    content = saved(noise(mode) if mode != "1" else noise("L").convert("1"), form)
    image = darkroom().develop(content)
    assert image.mode == "RGB" and image.tobytes() == plainly(content)


def test_a_palette_is_looked_up_and_its_transparency_dropped() -> None:
    content = saved(noise("RGB").quantize(16), transparency=3)
    assert darkroom().develop(content).tobytes() == plainly(content)


def test_of_sixteen_bits_the_high_ones_count() -> None:
    content = saved(Image.frombytes("I;16", (2, 1), b"\x34\x12\xff\xfe"))
    assert darkroom().develop(content).getpixel((0, 0)) == (0x12, 0x12, 0x12)
    assert darkroom().develop(content).getpixel((1, 0)) == (0xFE, 0xFE, 0xFE)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_a_picture_is_turned_as_its_exif_says(form: str) -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    options = {"lossless": True} if form == "WEBP" else {}
    turned = darkroom().develop(saved(image, form, exif=exif, **options))
    assert turned.size == (1, 2)
    assert [turned.getpixel((0, y)) for y in range(2)] == [RED, BLUE]


def test_colour_profiles_are_not_applied() -> None:
    image = noise("RGB")
    content = saved(image, icc_profile=b"no profile at all")
    assert darkroom().develop(content).tobytes() == image.tobytes()


def test_zeros_behind_a_picture_are_padding_and_anything_else_is_not() -> None:
    content = saved(noise("RGB"))
    assert check_picture(content + bytes(PADDING)) == "PNG"
    for behind in (bytes(PADDING + 1), b"\0x"):
        with pytest.raises(TrailingData):
            check_picture(content + behind)


def test_interlaced_rows_are_counted_pass_by_pass() -> None:
    """Eight by eight grey, 1 + 1 + 2 + 4 + 8 + 16 + 32 pixels in rows of their own."""
    head = bytes([0, 0, 0, 8, 0, 0, 0, 8, 8, 0, 0, 0])
    assert _unpacked_rows(head + b"\0") == 8 * (1 + 8)
    assert _unpacked_rows(head + b"\1") == 64 + (1 + 1 + 1 + 2 + 2 + 4 + 4)


def test_a_picture_that_breaks_its_process_is_refused_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room, content = Darkroom(), saved(noise("RGB"))
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", "import os; os.abort()"))
    with pytest.raises(PictureMalformed, match="broke the process"):
        room.develop(content)
    monkeypatch.undo()
    assert room.develop(content).size == (20, 13)
    room.close()


def test_a_process_that_never_answers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Darkroom()
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", "import time; time.sleep(99)"))
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    with pytest.raises(PictureMalformed, match="broke the process"):
        room.develop(saved(noise("RGB")))


def test_the_process_may_not_take_much_memory_nor_write_a_file() -> None:
    room = Darkroom()
    room.develop(saved(noise("RGB")))
    assert room._process is not None
    limits = Path(f"/proc/{room._process.pid}/limits").read_text()
    found = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert found["Max address space"] == str(MEMORY)
    assert found["Max file size"] == found["Max core file size"] == "0"
    room.close()


def test_a_process_that_has_left_the_network_reaches_no_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = (
            "import socket, sys; from disp_engine.isolation import leave_network\n"
            "left = leave_network()\n"
            "try:\n"
            f"    socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)\n"
            "    reached = True\n"
            "except OSError:\n"
            "    reached = False\n"
            "print(left, reached)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ
        )
    assert done.stdout in ("True False\n", "False True\n"), done.stderr
