"""Files in SQL that wait to be read, and the leases of those who read them."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from schemas.errors import ErrorCode
from schemas.files import FileRefusal, FileStatus
from storage.errors import LeaseLost
from storage.interfaces import Directive, FileClaim, Findings
from storage.sql.backend import SqlBackend, after_commit
from storage.sql.engine import database_now
from storage.sql.files import blob_of, keep_findings
from storage.sql.tables import FileRow
from storage.telemetry.metrics import LEASES_EXPIRED

HINTS_AT_ONCE = 100


class SqlReadings(SqlBackend):
    """A `ReadingStore`."""

    def claim_file(
        self, owner: str, *, lease_s: float, file_id: str | None = None
    ) -> FileClaim | None:
        """Take the oldest file that is `uploaded` (or `file_id`, if it is): now `processing`."""
        query = _files(FileStatus.UPLOADED)
        if file_id is not None:
            query = query.where(FileRow.id == file_id)
        with self._write() as session:
            row = session.scalars(query.limit(1)).first()
            if row is None:
                return None
            row.status, row.hint_due_at = FileStatus.PROCESSING.value, None
            row.lease_owner, row.lease_until = owner, database_now(session) + lease_s
            return FileClaim(blob_of(row), row.tenant, owner)

    def heartbeat_file(self, claim: FileClaim, *, lease_s: float) -> Directive:
        """Extend the lease to `lease_s` from now, unless it is lost."""
        with self._write() as session:
            try:
                row = _owned(session, claim)
            except LeaseLost:
                return Directive.LOST
            row.lease_until = database_now(session) + lease_s
            return Directive.CONTINUE

    def settle_file(self, claim: FileClaim, findings: Findings) -> None:
        """Keep what was found: the file is `processed`, or in `error` if nothing can be used."""
        with self._write() as session:
            _settle(_owned(session, claim), findings, database_now(session))

    def release_file(self, claim: FileClaim) -> None:
        """Hand the file back unread, no loss counted, and have it hinted at soon."""
        with self._write() as session:
            _return(_owned(session, claim), database_now(session))


def repair_files(session: Session, max_losses: int, now: float) -> dict[str, FileStatus]:
    """Decide what becomes of the files whose reader was lost."""
    lost = session.scalars(_files(FileStatus.PROCESSING).where(FileRow.lease_until < now)).all()
    for row in lost:
        _lose(session, row, max_losses, now)
    session.flush()
    return {row.id: FileStatus(row.status) for row in lost}


def due_file_hints(session: Session, now: float, hint_after_s: float) -> tuple[str, ...]:
    """Return the files to be hinted at, which are not due again for `hint_after_s`."""
    query = _files(FileStatus.UPLOADED).where(FileRow.hint_due_at <= now)
    due = session.scalars(query.limit(HINTS_AT_ONCE)).all()
    for row in due:
        row.hint_due_at = now + hint_after_s
    return tuple(row.id for row in due)


def _files(status: FileStatus) -> Any:
    """The oldest first; those that somebody else has at hand are left out."""
    query = select(FileRow).where(FileRow.status == status.value)
    return query.order_by(FileRow.id).with_for_update(skip_locked=True)


def _owned(session: Session, claim: FileClaim) -> FileRow:
    """Return the row if the claim still holds; an expired lease holds until it is repaired."""
    query = select(FileRow).where(
        FileRow.id == claim.file.id,
        FileRow.status == FileStatus.PROCESSING.value,
        FileRow.lease_owner == claim.owner,
    )
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is None:
        raise LeaseLost(claim.file.id)
    return row


def _lose(session: Session, row: FileRow, max_losses: int, now: float) -> None:
    row.losses += 1
    after_commit(session, LEASES_EXPIRED.inc)
    if row.losses < max_losses:
        _return(row, now)
        return
    message = f"Reading this file has ended its worker {row.losses} times in a row."
    _settle(row, Findings(error=FileRefusal(code=ErrorCode.WORKER_LOST, message=message)), now)


def _return(row: FileRow, now: float) -> None:
    row.status, row.hint_due_at = FileStatus.UPLOADED.value, now
    row.lease_owner = row.lease_until = None


def _settle(row: FileRow, findings: Findings, now: float) -> None:
    error = findings.error
    row.status = (FileStatus.ERROR if error else FileStatus.PROCESSED).value
    row.status_details = error.message if error else None
    row.lease_owner = row.lease_until = None
    keep_findings(row, findings, now)
