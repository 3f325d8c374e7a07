"""Parts on the local disk: one sparse file for each upload, every part at its own offset.

When the parts follow one another without a gap, the file needs only its final name; nothing is
copied. A slot is locked while it is written, across threads, processes and gateways of one host.
"""

import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from storage.errors import NotFound, PartBusy, UploadIncomplete
from storage.uploads import HeldPart

CHUNK = 1 << 20
LOCK_BYTES = "hhlli"
SLOT = "slot"


class LocalParts:
    """A `PartStore` in a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        adopt: Callable[[str, Path], None] | None,
        copy: Callable[[str, Iterator[bytes]], object],
        exists: Callable[[str], bool],
    ) -> None:
        """Take how a file becomes an object by its name alone, if it can, and by its bytes."""
        self._folder, self._adopt, self._copy, self._exists = folder, adopt, copy, exists

    def begin(self, key: str) -> str:
        """Return a handle for an object that will appear under `key`."""
        handle = uuid4().hex
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path(handle).touch(exist_ok=False)
        _sync(self._folder)
        return handle

    @contextmanager
    def writer(self, key: str, handle: str, number: int, offset: int) -> Iterator["_SlotWriter"]:
        """Open a part; what is not committed is forgotten. Raises `PartBusy`."""
        try:
            descriptor = os.open(self._path(handle), os.O_WRONLY)
        except FileNotFoundError as error:
            raise NotFound(handle) from error
        try:
            _lock(descriptor, number)
            yield _SlotWriter(descriptor, offset)
        finally:
            os.close(descriptor)

    def held(self, key: str, handle: str) -> Sequence[HeldPart]:
        """Return nothing: no part comes here past the gateway."""
        return ()

    def part_url(self, key: str, handle: str, number: int, bytes: int) -> None:
        """Return none: parts are sent to the gateway."""

    def assemble(self, key: str, handle: str, parts: Sequence[tuple[int, HeldPart]]) -> None:
        """Make parts, each with its offset, the object `key`; a second call does nothing."""
        path = self._path(handle)
        if not path.exists():
            if self._exists(key):
                return
            raise UploadIncomplete(key)
        end = 0
        for offset, part in parts:
            gapless = offset == end
            end += part.bytes
            if not gapless:
                break
        else:
            if self._adopt is not None:
                os.truncate(path, end)
                _sync(path)
                self._adopt(key, path)
                return
        self._copy(key, _pieces(path, parts))
        path.unlink(missing_ok=True)

    def abort(self, key: str, handle: str) -> None:
        """Forget all parts."""
        with suppress(FileNotFoundError):
            self._path(handle).unlink()

    def _path(self, handle: str) -> Path:
        return self._folder / handle


class _SlotWriter:
    """Writes from one offset on."""

    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor, self._offset = descriptor, offset

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, self._offset)
            self._offset += written
            view = view[written:]

    def commit(self) -> str:
        """Make what was written durable."""
        os.fdatasync(self._descriptor)
        return SLOT


def _lock(descriptor: int, number: int) -> None:
    """Lock the slot's own byte for as long as this open file lives, threads being no exception."""
    span = struct.pack(LOCK_BYTES, fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, span)
    except (BlockingIOError, PermissionError) as error:
        raise PartBusy(number) from error


def _pieces(path: Path, parts: Sequence[tuple[int, HeldPart]]) -> Iterator[bytes]:
    with path.open("rb") as file:
        for offset, part in parts:
            file.seek(offset)
            left = part.bytes
            while left:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise UploadIncomplete(part.number)
                left -= len(chunk)
                yield chunk


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
