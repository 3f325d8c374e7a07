"""Uploaded files: the rows, and where the bytes lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.files import File, FilePurpose, FileRefusal, FileValidation
from schemas.jobs import DataFault
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


@dataclass(frozen=True)
class Findings:
    """What reading a dataset has found; `error` is there if nothing of it can be used."""

    records: int = 0
    usable: int = 0
    repeated_ids: int = 0
    fault_count: int = 0
    faults: Sequence[DataFault] = ()
    error: FileRefusal | None = None


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
        """Return what was found when a file was last read, None before; or raise `NotFound`."""
        ...

    def list_files(
        self,
        tenant: str,
        *,
        purpose: FilePurpose | None = None,
        after: str | None = None,
        before: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[File]:
        """Return a page of files by id; `before` alone gives the page that ends there."""
        ...

    def delete_file(self, tenant: str, file_id: str) -> FileBlob:
        """Remove the row and return what to delete.

        Raises `FileInUse`, `NotFound`, or `FileIsResult` for what a job has published.
        """
        ...
