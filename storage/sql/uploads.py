"""Rows of uploads in SQL."""

from collections.abc import Sequence

from pydantic import BaseModel
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from schemas.files import File, FilePurpose
from schemas.uploads import UploadStatus
from storage.errors import NotFound, UploadNotPending
from storage.idempotency import Idempotency
from storage.ids import new_id
from storage.interfaces import FileDraft
from storage.sql.backend import SqlBackend
from storage.sql.engine import Clock, database_now
from storage.sql.files import file_of, file_row
from storage.sql.idempotency import earlier_answer, keep_answer
from storage.sql.tables import FileRow, UploadPartRow, UploadRow
from storage.uploads import HeldPart, PartRecord, UploadDraft, UploadRecord

PENDING: UploadStatus = "pending"
SWEEP = 100


class Begun(BaseModel):
    """What is kept of the answer to an Idempotency-Key: which upload it began."""

    upload_id: str


class SqlUploads(SqlBackend):
    """An `UploadStore`."""

    def create_upload(
        self,
        tenant: str,
        draft: UploadDraft,
        *,
        ttl_s: float,
        idempotency: Idempotency | None = None,
    ) -> UploadRecord:
        """Begin an upload that expires `ttl_s` from now, or return the one that the key began."""
        with self._write() as session:
            now = database_now(session)
            earlier = earlier_answer(session, tenant, idempotency, Begun, now)
            if earlier is not None:
                return _record(_find(session, tenant, earlier.upload_id))
            row = UploadRow(
                id=draft.id,
                tenant=tenant,
                status=PENDING,
                filename=draft.filename,
                purpose=draft.purpose.value,
                bytes=draft.bytes,
                part_size=draft.part_size,
                sha256=draft.sha256,
                file_id=draft.file_id,
                key=draft.key,
                handle=draft.handle,
                created_at=now,
                expires_at=now + ttl_s,
            )
            session.add(row)
            keep_answer(session, tenant, idempotency, Begun(upload_id=row.id))
        return _record(row)

    def get_upload(self, tenant: str, upload_id: str) -> UploadRecord:
        """Return an upload or raise `NotFound`."""
        with self._read() as session:
            return _record(_find(session, tenant, upload_id))

    def list_parts(self, upload_id: str) -> Sequence[PartRecord]:
        """Return the parts that have rows, by number."""
        query = select(UploadPartRow).where(UploadPartRow.upload_id == upload_id)
        with self._read() as session:
            rows = session.scalars(query.order_by(UploadPartRow.number)).all()
        return [_part(row) for row in rows]

    def add_part(self, upload_id: str, part: HeldPart) -> PartRecord:
        """Give a part its row; one with the same number and another tag is replaced."""
        with self._write() as session:
            query = select(UploadRow).where(UploadRow.id == upload_id, _is_open())
            if session.scalars(query.with_for_update()).one_or_none() is None:
                raise UploadNotPending(upload_id)
            row = session.get(UploadPartRow, (upload_id, part.number))
            if row is None or row.tag != part.tag:
                row = session.merge(_row(upload_id, part, database_now(session)))
        return _part(row)

    def complete_upload(self, tenant: str, upload_id: str, sha256: str) -> File:
        """End a pending upload and give its file a row, in one transaction; idempotent."""
        with self._write() as session:
            upload = _find(session, tenant, upload_id, lock=True)
            if upload.status == PENDING:
                upload.status = "completed"
                upload.sha256 = sha256
                draft = _file_draft(upload, sha256)
                session.add(file_row(tenant, draft, database_now(session)))
                session.flush()
            file = session.get(FileRow, upload.file_id)
            if upload.status != "completed" or file is None:
                raise UploadNotPending(upload_id)
            return file_of(file)

    def cancel_upload(self, tenant: str, upload_id: str) -> UploadRecord:
        """End an upload; a cancelled one stays as it is, and `UploadNotPending` for others."""
        with self._write() as session:
            row = _find(session, tenant, upload_id, lock=True)
            if row.status not in (PENDING, "cancelled"):
                raise UploadNotPending(upload_id)
            row.status = "cancelled"
            return _record(row)

    def abandoned_uploads(self) -> Sequence[UploadRecord]:
        """Expire what is overdue; return all that ended without a file and are not swept yet."""
        overdue = (UploadRow.status == PENDING) & (UploadRow.expires_at < Clock())
        unswept = UploadRow.status.in_(["cancelled", "expired"]) & UploadRow.swept_at.is_(None)
        with self._read() as session:
            any_of_them = select(UploadRow.id).where(overdue | unswept).limit(1)
            if session.scalars(any_of_them).first() is None:
                return []
        with self._write() as session:
            session.execute(update(UploadRow).where(overdue).values(status="expired"))
            rows = session.scalars(select(UploadRow).where(unswept).limit(SWEEP)).all()
            return [_record(row) for row in rows]

    def mark_swept(self, upload_id: str) -> None:
        """Note that the artifact store holds nothing of an ended upload any more."""
        with self._write() as session:
            session.execute(
                update(UploadRow).where(UploadRow.id == upload_id).values(swept_at=Clock())
            )


def _is_open() -> ColumnElement[bool]:
    return (UploadRow.status == PENDING) & (UploadRow.expires_at >= Clock())


def _find(session: Session, tenant: str, upload_id: str, *, lock: bool = False) -> UploadRow:
    query = select(UploadRow).where(UploadRow.id == upload_id, UploadRow.tenant == tenant)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(upload_id)
    return row


def _record(row: UploadRow) -> UploadRecord:
    status: UploadStatus = row.status  # type: ignore[assignment]  # only such are written
    return UploadRecord(
        id=row.id,
        file_id=row.file_id,
        key=row.key,
        handle=row.handle,
        filename=row.filename,
        purpose=FilePurpose(row.purpose),
        bytes=row.bytes,
        part_size=row.part_size,
        sha256=row.sha256,
        tenant=row.tenant,
        status=status,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _row(upload_id: str, part: HeldPart, now: float) -> UploadPartRow:
    return UploadPartRow(
        upload_id=upload_id,
        number=part.number,
        id=new_id("part"),
        bytes=part.bytes,
        sha256=part.sha256,
        tag=part.tag,
        created_at=now,
    )


def _part(row: UploadPartRow) -> PartRecord:
    return PartRecord(
        number=row.number,
        bytes=row.bytes,
        tag=row.tag,
        sha256=row.sha256,
        id=row.id,
        created_at=row.created_at,
    )


def _file_draft(upload: UploadRow, sha256: str) -> FileDraft:
    return FileDraft(
        id=upload.file_id,
        filename=upload.filename,
        purpose=FilePurpose(upload.purpose),
        key=upload.key,
        bytes=upload.bytes,
        sha256=sha256,
    )
