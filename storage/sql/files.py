"""Rows of uploaded files in SQL."""

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from schemas.files import DATASETS, File, FilePurpose, FileStatus, FileValidation
from schemas.jobs import TERMINAL
from schemas.requests import Validation
from schemas.wire import Page
from storage.errors import FileInUse, FileIsResult, NotFound
from storage.interfaces import (
    FileBlob,
    FileDraft,
    Findings,
    Idempotency,
    Order,
    ValidationDraft,
)
from storage.sql.backend import SqlBackend, one_page, page_of
from storage.sql.engine import database_now
from storage.sql.idempotency import earlier_answer, keep_answer
from storage.sql.tables import FileRow, JobRow

HINT_GRACE_S = 30.0


class SqlFiles(SqlBackend):
    """A `FileStore`."""

    def add_file(
        self, tenant: str, draft: FileDraft, idempotency: Idempotency | None = None
    ) -> File:
        """Give stored bytes a row; a file of another id is the one that the key made earlier."""
        with self._write() as session:
            now = database_now(session)
            earlier = earlier_answer(session, tenant, idempotency, File, now)
            if earlier is not None:
                return earlier
            row = file_row(tenant, draft, now)
            session.add(row)
            keep_answer(session, tenant, idempotency, file_of(row))
        return file_of(row)

    def get_file(self, tenant: str, file_id: str) -> File:
        """Return a file or raise `NotFound`."""
        with self._read() as session:
            return file_of(find_file(session, tenant, file_id))

    def file_blob(self, tenant: str, file_id: str) -> FileBlob:
        """Return where a file's bytes lie or raise `NotFound`."""
        with self._read() as session:
            return blob_of(find_file(session, tenant, file_id))

    def file_validation(self, tenant: str, file_id: str) -> FileValidation | None:
        """Return what was found when a file was last read, None before; or raise `NotFound`."""
        with self._read() as session:
            found = find_file(session, tenant, file_id).validation
        return None if found is None else FileValidation.model_validate(found)

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
        query = select(FileRow).where(FileRow.tenant == tenant)
        if purpose is not None:
            query = query.where(FileRow.purpose == purpose.value)
        with self._read() as session:
            rows, more = one_page(
                session, query, FileRow.id, after=after, before=before, limit=limit, order=order
            )
        return page_of([file_of(row) for row in rows], more)

    def delete_file(self, tenant: str, file_id: str) -> FileBlob:
        """Remove the row and return what to delete."""
        with self._write() as session:
            row = find_file(session, tenant, file_id, for_update={})
            if row.job_id is not None:
                raise FileIsResult(file_id)
            require_unread(session, file_id)
            session.delete(row)
            return blob_of(row)


def find_file(
    session: Session, tenant: str, file_id: str, for_update: dict[str, Any] | None = None
) -> FileRow:
    """Return a tenant's row, locked if `for_update` says how, or raise `NotFound`."""
    query = select(FileRow).where(FileRow.id == file_id, FileRow.tenant == tenant)
    if for_update is not None:
        query = query.with_for_update(**for_update)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound(file_id)
    return row


def file_row(tenant: str, draft: FileDraft, now: float, job_id: str | None = None) -> FileRow:
    """Return the row of stored bytes, of a job's if it has published them.

    A dataset waits to be read; who has stored it hints at it, and later the reconciler does.
    """
    unread = draft.purpose in DATASETS
    return FileRow(
        id=draft.id,
        tenant=tenant,
        filename=draft.filename,
        purpose=draft.purpose.value,
        key=draft.key,
        bytes=draft.bytes,
        sha256=draft.sha256,
        created_at=now,
        job_id=job_id,
        status=(FileStatus.UPLOADED if unread else FileStatus.PROCESSED).value,
        hint_due_at=now + HINT_GRACE_S if unread else None,
    )


def note_validation(session: Session, job: JobRow, draft: ValidationDraft, now: float) -> None:
    """Keep what a job has found in one of its files; a file that is gone is not missed."""
    file_id = getattr(job, draft.param)
    row = session.get(FileRow, file_id) if file_id else None
    if row is not None:
        mode = job.request.get("validation", "quarantine")
        keep_findings(row, draft.findings, now, mode, job.id)


def keep_findings(
    row: FileRow,
    findings: Findings,
    now: float,
    mode: Validation = "quarantine",
    job_id: str | None = None,
) -> None:
    """Let a file's validation be this."""
    found = FileValidation(
        file_id=row.id,
        job_id=job_id,
        validated_at=now,
        mode=mode,
        records=findings.records,
        usable=findings.usable,
        repeated_ids=findings.repeated_ids,
        fault_count=findings.fault_count,
        faults=list(findings.faults),
        error=findings.error,
    )
    row.validation = found.model_dump(mode="json")


def require_unread(session: Session, file_id: str) -> None:
    """Raise `FileInUse` if an unfinished job reads the file."""
    if session.scalars(_unfinished_readers(file_id)).first() is not None:
        raise FileInUse(file_id)


def blob_of(row: FileRow) -> FileBlob:
    """Return what a worker needs of a row."""
    return FileBlob(
        id=row.id, filename=row.filename, key=row.key, bytes=row.bytes, sha256=row.sha256
    )


def _unfinished_readers(file_id: str) -> Any:
    return (
        select(JobRow.id)
        .where(JobRow.status.not_in([status.value for status in TERMINAL]))
        .where(
            or_(
                JobRow.training_file == file_id,
                JobRow.triggered_file == file_id,
                JobRow.clean_file == file_id,
                JobRow.checkpoint_file == file_id,
            )
        )
        .limit(1)
    )


def file_of(row: FileRow) -> File:
    """Return a row as clients see it."""
    return File(
        id=row.id,
        bytes=row.bytes,
        created_at=int(row.created_at),
        filename=row.filename,
        purpose=FilePurpose(row.purpose),
        status=FileStatus(row.status),
        status_details=row.status_details,
        sha256=row.sha256,
    )
