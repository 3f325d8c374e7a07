"""Uploaded files: the rows, and where the bytes lie."""

from dataclasses import dataclass
from typing import Protocol

from schemas.files import File, FilePurpose, FileValidation
from schemas.wire import Page
from storage.idempotency import Idempotency
from storage.interfaces.order import Order


@dataclass(frozen=True)
class FileBlob:
    """An uploaded file and where its bytes lie."""

    id: str
    filename: str
    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FileDraft:
    """An upload whose bytes are stored and which is to be given a row."""

    id: str
    filename: str
    purpose: FilePurpose
    key: str
    bytes: int
    sha256: str


class FileStore(Protocol):
    """Rows of uploaded files; their bytes are in the artifact store."""

    def add_file(
        self, tenant: str, draft: FileDraft, idempotency: Idempotency | None = None
    ) -> File:
        """Give stored bytes a row; a file of another id is the one that the key made earlier.

        Raises `IdempotencyKeyReused` or `IdempotencyInFlight`.
        """
        ...

    def get_file(self, tenant: str, file_id: str) -> File:
        """Return a file or raise `NotFound`."""
        ...

    def file_blob(self, tenant: str, file_id: str) -> FileBlob:
        """Return where a file's bytes lie or raise `NotFound`."""
        ...

    def file_validation(self, tenant: str, file_id: str) -> FileValidation | None:
        """Return what the last job that read a file has found, None before; or raise `NotFound`."""
        ...

    def list_files(
        self,
        tenant: str,
        *,
        purpose: FilePurpose | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[File]:
        """Return a page of files by id, that is, by time of creation."""
        ...

    def delete_file(self, tenant: str, file_id: str) -> FileBlob:
        """Remove the row and return what to delete.

        Raises `FileInUse`, `NotFound`, or `FileIsResult` for what a job has published.
        """
        ...
