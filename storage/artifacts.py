"""Bytes in memory, in a directory, or anywhere else that obstore reaches."""

import hashlib
import os
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import LocalStore, MemoryStore, ObjectStore

from storage.errors import AlreadyExists, KeyRefused, NotFound, StoreAway
from storage.interfaces import StoredBlob
from storage.parts import LocalParts
from storage.uploads import PartStore

CHUNK = 1 << 20
STREAM_CHUNK, STREAM_CHUNKS = 8 << 20, 2  # what a stream to S3 holds in memory
STAGING = "staging"
PARTS = "parts"


class ObjectArtifactStore(ABC):
    """What every `ArtifactStore` over obstore does alike."""

    def __init__(self, store: ObjectStore) -> None:
        """Store in `store`."""
        self._store = store

    @property
    @abstractmethod
    def parts(self) -> PartStore:
        """Where objects grow that arrive in parts."""

    def download_url(self, key: str, *, filename: str, media_type: str) -> str | None:
        """Return none: clients are sent the bytes."""
        return None

    def put_file(self, key: str, path: Path) -> StoredBlob:
        """Store a file's bytes without holding them in memory; replaces what was there."""
        return self.put_stream(key, read_chunks(path))

    def put_stream(self, key: str, chunks: Iterable[bytes]) -> StoredBlob:
        """Store chunks as they come; if the iterator raises, nothing is stored."""
        tally = _Tally(chunks)
        self._publish(checked(key), tally, create=False)
        return StoredBlob(key, tally.bytes, tally.hash.hexdigest())

    def create(self, key: str, data: bytes) -> StoredBlob:
        """Store bytes under a new key, or raise `AlreadyExists`."""
        try:
            self._publish(checked(key), data, create=True)
        except (AlreadyExistsError, FileExistsError) as error:
            raise AlreadyExists(key) from error
        return StoredBlob(key, len(data), hashlib.sha256(data).hexdigest())

    def get(self, key: str) -> bytes:
        """Return all bytes or raise `NotFound`."""
        return b"".join(self.open(key))

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the bytes from `start` in chunks, or raise `NotFound` at the call."""
        size = self.size(key)
        end = size if length is None else min(size, start + length)
        if start >= end:
            return iter(())
        with _reachable():
            found = obstore.get(self._store, key, options={"range": (start, end)})
        return _chunks(found)

    def size(self, key: str) -> int:
        """Return the length in bytes or raise `NotFound`."""
        try:
            with _reachable():
                return int(obstore.head(self._store, checked(key))["size"])
        except FileNotFoundError as error:
            raise NotFound(key) from error

    def exists(self, key: str) -> bool:
        """Tell whether the key is there."""
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys below `prefix`, which ends at a `/`, in no order."""
        for page in obstore.list(self._store, prefix=checked(prefix.removesuffix("/"))):
            yield from (item["path"] for item in page)

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is no error."""
        if self.exists(key):
            with _reachable():
                obstore.delete(self._store, key)

    def _publish(self, key: str, body: "bytes | _Tally", *, create: bool) -> None:
        mode: Literal["create", "overwrite"] = "create" if create else "overwrite"
        with _reachable():
            obstore.put(
                self._store,
                key,
                body,
                mode=mode,
                chunk_size=STREAM_CHUNK,
                max_concurrency=STREAM_CHUNKS,
            )


class MemoryArtifactStore(ObjectArtifactStore):
    """An `ArtifactStore` in this process; parts wait in a temporary folder."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__(MemoryStore())
        folder = tempfile.mkdtemp(prefix="disp-parts-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._parts = LocalParts(Path(folder), adopt=None, copy=self.put_stream, exists=self.exists)

    @property
    def parts(self) -> PartStore:
        """Where objects grow that arrive in parts."""
        return self._parts


class LocalArtifactStore(ObjectArtifactStore):
    """An `ArtifactStore` in a directory: what it returns from is on the disk."""

    def __init__(self, root: Path) -> None:
        """Make the directory if it is missing."""
        super().__init__(LocalStore(root, mkdir=True))
        self._root = root
        self._parts = LocalParts(
            root / PARTS, adopt=self._adopt, copy=self.put_stream, exists=self.exists
        )

    @property
    def parts(self) -> PartStore:
        """Where objects grow that arrive in parts."""
        return self._parts

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the bytes as the kernel has them; obstore would read 8 KiB at a time."""
        size = self.size(key)
        end = size if length is None else min(size, start + length)
        return _file_range(self._root / key, start, end)

    def _publish(self, key: str, body: "bytes | _Tally", *, create: bool) -> None:
        staged = f"{STAGING}/{uuid4().hex}"
        try:
            with _reachable():
                obstore.put(self._store, staged, body)
                _sync(self._root / staged)
                obstore.rename(self._store, staged, key, overwrite=not create)
        except BaseException:
            (self._root / staged).unlink(missing_ok=True)
            raise
        _sync_parents(self._root, key)

    def _adopt(self, key: str, path: Path) -> None:
        """Give a finished file of this very file system its name as an object."""
        target = self._root / checked(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        _sync_parents(self._root, key)


@contextmanager
def _reachable() -> Iterator[None]:
    """Raise `StoreAway` for what obstore calls generic: no connection, no disk, no answer."""
    try:
        yield
    except GenericError as error:
        raise StoreAway() from error


def _chunks(found: "obstore.GetResult") -> Iterator[bytes]:
    """A store may go away at any chunk."""
    with _reachable():
        for chunk in found.stream(min_chunk_size=CHUNK):
            yield bytes(chunk)


class _Tally:
    """Counts and hashes chunks on their way through."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.bytes = 0
        self.hash = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.bytes += len(chunk)
            self.hash.update(chunk)
            yield chunk


def read_chunks(path: Path) -> Iterator[bytes]:
    """Return a file's bytes a mebibyte at a time."""
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _file_range(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Return the bytes from `start` to `end` of a file that was there a moment ago."""
    try:
        stream = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise NotFound(path.name) from error
    with stream:
        stream.seek(start)
        while chunk := stream.read(max(0, min(CHUNK, end - stream.tell()))):
            yield chunk


def checked(key: str) -> str:
    """Return a key that stays inside the store, or raise `KeyRefused`."""
    if any(part in ("", ".", "..") for part in key.split("/")) or "\x00" in key or "\\" in key:
        raise KeyRefused(key)
    return key


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_parents(root: Path, key: str) -> None:
    """Make the new name durable, and the names of directories that may be new with it."""
    for folder in (root / key).parents:
        _sync(folder)
        if folder == root:
            return
