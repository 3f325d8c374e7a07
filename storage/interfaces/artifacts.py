"""Bytes by key."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from storage.uploads import PartStore


@dataclass(frozen=True)
class StoredBlob:
    """What was stored, as counted and hashed on the way in."""

    key: str
    bytes: int
    sha256: str


class ArtifactStore(Protocol):
    """Bytes by key; what a call has returned survives a power loss."""

    @property
    def parts(self) -> PartStore:
        """Where objects grow that arrive in parts."""
        ...

    def download_url(self, key: str, *, filename: str, media_type: str) -> str | None:
        """Return a URL that opens this object to anyone for a while; None if there are none."""
        ...

    def put_file(self, key: str, path: Path) -> StoredBlob:
        """Store a file's bytes without holding them in memory; replaces what was there."""
        ...

    def put_stream(self, key: str, chunks: Iterable[bytes]) -> StoredBlob:
        """Store chunks as they come; if the iterator raises, nothing is stored."""
        ...

    def create(self, key: str, data: bytes) -> StoredBlob:
        """Store bytes under a new key, or raise `AlreadyExists`.

        Of simultaneous callers one wins, unless the store is an S3 service that looks for the key
        only before it writes: there several may be told so, and one of theirs stays.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return all bytes or raise `NotFound`."""
        ...

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the bytes from `start` in chunks, or raise `NotFound` at the call."""
        ...

    def size(self, key: str) -> int:
        """Return the length in bytes or raise `NotFound`."""
        ...

    def exists(self, key: str) -> bool:
        """Tell whether the key is there."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys below `prefix`, which ends at a `/`, in no order."""
        ...

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is no error."""
        ...
