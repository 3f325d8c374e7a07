"""Files that arrive in parts: their rows, and their bytes until they are one object.

The artifact store names a growing object by a key, under which it will appear, and a handle.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from schemas.files import File, FilePurpose
from schemas.uploads import UploadStatus
from storage.idempotency import Idempotency


@dataclass(frozen=True)
class UploadDraft:
    """An upload before the store gives it its times."""

    id: str
    file_id: str
    key: str
    handle: str
    filename: str
    purpose: FilePurpose
    bytes: int
    part_size: int
    sha256: str | None


@dataclass(frozen=True)
class UploadRecord(UploadDraft):
    """An upload as it is now; times are Unix seconds on the database's clock."""

    tenant: str
    status: UploadStatus
    created_at: float
    expires_at: float


@dataclass(frozen=True)
class HeldPart:
    """A part whose bytes the artifact store holds; no sha256 if they did not pass the gateway."""

    number: int
    bytes: int
    tag: str
    sha256: str | None = None


@dataclass(frozen=True)
class PartRecord(HeldPart):
    """A held part with its row."""

    id: str = ""
    created_at: float = 0.0


class UploadStore(Protocol):
    """Rows of uploads and of their parts."""

    def create_upload(
        self,
        tenant: str,
        draft: UploadDraft,
        *,
        ttl_s: float,
        idempotency: Idempotency | None = None,
    ) -> UploadRecord:
        """Begin an upload that expires `ttl_s` from now.

        One of another id is the upload that the key began earlier. Raises `IdempotencyKeyReused` or
        `IdempotencyInFlight`.
        """
        ...

    def get_upload(self, tenant: str, upload_id: str) -> UploadRecord:
        """Return an upload or raise `NotFound`."""
        ...

    def list_parts(self, upload_id: str) -> Sequence[PartRecord]:
        """Return the parts that have rows, by number."""
        ...

    def add_part(self, upload_id: str, part: HeldPart) -> PartRecord:
        """Give a part its row; one with the same number and another tag is replaced.

        Raises `UploadNotPending`.
        """
        ...

    def complete_upload(self, tenant: str, upload_id: str, sha256: str) -> File:
        """End a pending upload and give its file a row, in one transaction; idempotent.

        Raises `UploadNotPending` or `NotFound`.
        """
        ...

    def cancel_upload(self, tenant: str, upload_id: str) -> UploadRecord:
        """End an upload; a cancelled one stays as it is, and `UploadNotPending` for others."""
        ...

    def abandoned_uploads(self) -> Sequence[UploadRecord]:
        """Expire what is overdue; return all that ended without a file and are not swept yet."""
        ...

    def mark_swept(self, upload_id: str) -> None:
        """Note that the artifact store holds nothing of an ended upload any more."""
        ...


class PartWriter(Protocol):
    """Takes the bytes of one part."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...

    def commit(self) -> str:
        """Make what was written the part, durably, and return its tag."""
        ...


class PartStore(Protocol):
    """Objects on their way into the artifact store."""

    def begin(self, key: str) -> str:
        """Return a handle for an object that will appear under `key`."""
        ...

    def writer(
        self, key: str, handle: str, number: int, offset: int
    ) -> AbstractContextManager[PartWriter]:
        """Open a part; what is not committed is forgotten. Raises `PartBusy`.

        `offset` is where the part begins if all before it are as long as they may be.
        """
        ...

    def held(self, key: str, handle: str) -> Sequence[HeldPart]:
        """Return the parts that came here past the gateway, or nothing if that cannot be."""
        ...

    def part_url(self, key: str, handle: str, number: int, bytes: int) -> str | None:
        """Return a URL that takes this part, of exactly this length, by PUT; None if none does."""
        ...

    def assemble(self, key: str, handle: str, parts: Sequence[tuple[int, HeldPart]]) -> None:
        """Make parts, each with its offset, the object `key`, in this order of rising numbers.

        A second call finds the object and does nothing. Raises `UploadIncomplete`.
        """
        ...

    def abort(self, key: str, handle: str) -> None:
        """Forget all parts; those that are not there are no error."""
        ...
