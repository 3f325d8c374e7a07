"""Bytes in a directory, in memory or in an S3 bucket: one class over obstore for all three."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from storage.errors import AlreadyExists, KeyRefused, NotFound
from storage.interfaces import StoredBlob

CHUNK = 1 << 20
STAGING = "staging"


class ObjectArtifactStore:
    """An `ArtifactStore` over any URL that obstore can open."""

    def __init__(self, url: str) -> None:
        """Open `file:///DIR` (made if missing), `memory://` or `s3://bucket/prefix`."""
        self._store, self._root = _open(url)

    def put_file(self, key: str, path: Path) -> StoredBlob:
        """Store a file's bytes without holding them in memory; replaces what was there."""
        return self.put_stream(key, read_chunks(path))

    def put_stream(self, key: str, chunks: Iterable[bytes]) -> StoredBlob:
        """Store chunks as they come; if the iterator raises, nothing is stored."""
        tally = _Tally(chunks)
        self._publish(_checked(key), tally, create=False)
        return StoredBlob(key, tally.bytes, tally.hash.hexdigest())

    def create(self, key: str, data: bytes) -> StoredBlob:
        """Store bytes under a new key, or raise `AlreadyExists`; of many callers one wins."""
        try:
            self._publish(_checked(key), data, create=True)
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
        found = obstore.get(self._store, key, options={"range": (start, end)})
        return (bytes(chunk) for chunk in found.stream(min_chunk_size=CHUNK))

    def size(self, key: str) -> int:
        """Return the length in bytes or raise `NotFound`."""
        try:
            return int(obstore.head(self._store, _checked(key))["size"])
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
        for page in obstore.list(self._store, prefix=_checked(prefix.removesuffix("/"))):
            yield from (item["path"] for item in page)

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is no error."""
        if self.exists(key):
            obstore.delete(self._store, key)

    def _publish(self, key: str, body: "bytes | _Tally", *, create: bool) -> None:
        if self._root is None:
            obstore.put(self._store, key, body, mode="create" if create else "overwrite")
            return
        staged = f"{STAGING}/{uuid4().hex}"
        try:
            obstore.put(self._store, staged, body)
            _sync(self._root / staged)
            obstore.rename(self._store, staged, key, overwrite=not create)
        except BaseException:
            (self._root / staged).unlink(missing_ok=True)
            raise
        _sync_parents(self._root, key)


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


def _open(url: str) -> tuple[ObjectStore, Path | None]:
    if url.startswith("file://"):
        root = Path(url.removeprefix("file://"))
        return LocalStore(root, mkdir=True), root
    if url.startswith("memory:"):
        return MemoryStore(), None
    return from_url(url), None


def _checked(key: str) -> str:
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
