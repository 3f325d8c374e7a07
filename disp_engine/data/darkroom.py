"""Decodes pictures in a process of its own, so that a picture can break nothing but that.

The process is started once and serves picture after picture; one that breaks it is refused, and the
next picture finds a new process.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from functools import lru_cache
from typing import IO

from PIL import Image

from disp_engine.data.developer import LENGTH, SECONDS
from disp_engine.data.pictures import MAX_PIXELS, check_picture
from disp_engine.errors import PictureMalformed, PictureTooLarge

COMMAND = (sys.executable, "-m", "disp_engine.data.developer")
PATIENCE_S = 3.0 * SECONDS
LONGEST_ANSWER = 4096
_KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class Darkroom:
    """A decoding process, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def develop(self, content: bytes) -> Image.Image:
        """Return a picture as RGB, upright, or raise a PictureError."""
        check_picture(content)
        with self._lock:
            process = self._running()
            watch = threading.Timer(PATIENCE_S, process.kill)
            watch.daemon = True
            watch.start()
            try:
                return _ask(process, content)
            except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
                self.close()
                raise PictureMalformed("the picture broke the process that decodes it") from error
            finally:
                watch.cancel()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={k: v for k, v in os.environ.items() if k in _KEPT or k.startswith("PYTHON")},
            )
        return self._process


@lru_cache(maxsize=1)
def darkroom() -> Darkroom:
    """The one of this process."""
    return Darkroom()


def _ask(process: "subprocess.Popen[bytes]", content: bytes) -> Image.Image:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(LENGTH.pack(len(content)))
    process.stdin.write(content)
    process.stdin.flush()
    answer = json.loads(process.stdout.readline(LONGEST_ANSWER))
    if "reason" in answer:
        raise _refusal(str(answer["reason"]))
    width, height = map(int, answer["size"])
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError("an impossible size")
    return Image.frombytes("RGB", (width, height), _exactly(process.stdout, 3 * width * height))


def _refusal(reason: str) -> PictureMalformed | PictureTooLarge:
    if reason.startswith(("DecompressionBomb", "MemoryError")):
        return PictureTooLarge(f"the picture cannot be decoded: {reason}")
    return PictureMalformed(f"the picture cannot be decoded: {reason}")


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
