"""Jobs in SQL as a worker sees them: claims, heartbeats, verdicts and the repair of deaths."""

import itertools
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from schemas.errors import ErrorCode
from schemas.files import FileStatus
from schemas.jobs import LEASED, WORKING, JobError, JobStatus, StepStatus
from storage.errors import LeaseLost
from storage.interfaces import (
    Claim,
    Directive,
    EventDraft,
    FileDraft,
    JobInputs,
    MetricDraft,
    Reconciled,
    StepUpdate,
    ValidationDraft,
)
from storage.sql.backend import SqlBackend, after_commit
from storage.sql.control import pause, requeue
from storage.sql.engine import database_now
from storage.sql.files import file_row, note_validation
from storage.sql.history import (
    add_events,
    add_metrics,
    close_attempt,
    note_status,
    settle_steps,
    update_step,
)
from storage.sql.idempotency import forget_expired
from storage.sql.jobs import drop_hint, end, end_cancelled
from storage.sql.readings import due_file_hints, repair_files
from storage.sql.shards import extend, inputs_of
from storage.sql.tables import EventRow, JobRow, OutboxRow
from storage.telemetry.metrics import LEASES_EXPIRED, SAMPLES_PROCESSED

DIRECTIVES = {JobStatus.PAUSING: Directive.PAUSE, JobStatus.CANCELLING: Directive.CANCEL}


class SqlLeases(SqlBackend):
    """A `LeaseStore`."""

    def claim(
        self, owner: str, *, lease_s: float, job_id: str | None = None, max_losses: int = 3
    ) -> Claim | None:
        """Take the oldest job that may be taken (or `job_id`, if it may) for a new attempt."""
        while True:
            with self._write() as session:
                now = database_now(session)
                job = session.scalars(_takeable(owner, job_id, now)).first()
                if job is None:
                    return None
                if job.status == JobStatus.PAUSING:
                    pause(session, job, "worker lost while pausing: job paused", now)
                    continue
                if job.status in WORKING and _lose(session, job, max_losses, now):
                    continue
                return _take(session, job, owner, lease_s, now)

    def job_inputs(self, claim: Claim) -> JobInputs:
        """Return the request with its model and files, or raise `LeaseLost`."""
        with self._read() as session:
            return inputs_of(session, owned(session, claim, lock=False))

    def heartbeat(self, claim: Claim, *, lease_s: float) -> Directive:
        """Extend the lease to `lease_s` from now, unless it is lost."""
        with self._write() as session:
            try:
                job = owned(session, claim)
            except LeaseLost:
                return Directive.LOST
            job.lease_until = database_now(session) + lease_s
            extend(session, job.id, claim.owner, job.lease_until)
            return DIRECTIVES.get(JobStatus(job.status), Directive.CONTINUE)

    def record(
        self,
        claim: Claim,
        *,
        status: JobStatus | None = None,
        steps: Sequence[StepUpdate] = (),
        events: Sequence[EventDraft] = (),
        metrics: Sequence[MetricDraft] = (),
        validations: Sequence[ValidationDraft] = (),
    ) -> None:
        """Write what happened in one transaction, or raise `LeaseLost` and write nothing."""
        if status is not None and status not in WORKING:
            raise ValueError(
                f"a worker ends a job by succeed, fail or mark_cancelled, not {status}"
            )
        with self._write() as session:
            job = owned(session, claim)
            now = database_now(session)
            if status is not None and job.status in WORKING:
                job.status = status.value
            if any([update_step(session, job, step, now) for step in steps]):
                job.losses = 0
            add_events(session, job, events, now)
            add_metrics(session, job, metrics, now)
            for draft in validations:
                note_validation(session, job, draft, now)

    def release(self, claim: Claim) -> None:
        """Hand the job back unharmed, no loss counted: queued, or paused or cancelled if asked."""
        with self._write() as session:
            job = owned(session, claim)
            now = database_now(session)
            if job.status == JobStatus.CANCELLING:
                end_cancelled(session, job, now)
            elif job.status == JobStatus.PAUSING:
                pause(session, job, "job paused: its work is saved", now)
            else:
                requeue(session, job, "handed back by its worker: job queued again", now)

    def fault(self, claim: Claim, error: JobError, *, max_faults: int = 3) -> bool:
        """Note that the attempt broke; the last of too many in a row ends the job."""
        with self._write() as session:
            job = owned(session, claim)
            now = database_now(session)
            data = {"code": error.code, "attempt": job.attempt}
            note = EventDraft(f"the engine failed: {error.message}", level="error", data=data)
            add_events(session, job, [note], now)
            hopeless = _faults_in_a_row(session, job) >= max_faults
            if hopeless and job.status in WORKING:
                _end_failed(session, job, error, now)
            return job.status == JobStatus.FAILED

    def succeed(
        self,
        claim: Claim,
        manifest_key: str,
        result: Mapping[str, Any],
        files: Sequence[FileDraft] = (),
    ) -> None:
        """End the job with the artifacts that `manifest_key` lists, also if it was to stop."""
        with self._write() as session:
            job = owned(session, claim)
            now = database_now(session)
            job.manifest_key, job.result = manifest_key, dict(result)
            session.add_all([file_row(job.tenant, draft, now, job.id) for draft in files])
            settle_steps(session, job, {StepStatus.PENDING: StepStatus.SKIPPED})
            end(session, job, JobStatus.SUCCEEDED, "job succeeded", now)
            after_commit(session, lambda: _count_samples(result))

    def fail(self, claim: Claim, error: JobError) -> None:
        """End the job with an error."""
        with self._write() as session:
            _end_failed(session, owned(session, claim), error, database_now(session))

    def mark_cancelled(self, claim: Claim) -> None:
        """End the job as its owner asked."""
        with self._write() as session:
            end_cancelled(session, owned(session, claim), database_now(session))

    def reconcile(self, *, max_losses: int = 3, hint_after_s: float = 30.0) -> Reconciled:
        """Repair what a death left behind; idempotent, and several may run at once."""
        with self._write() as session:
            now = database_now(session)
            expired = session.scalars(_expired(now)).all()
            verdicts = {job.id: _repair(session, job, max_losses, now) for job in expired}
            files = repair_files(session, max_losses, now)
            forget_expired(session, now)
            hints = _due_hints(session, now, hint_after_s)
            file_hints = due_file_hints(session, now, hint_after_s)
        return Reconciled(
            hints=hints,
            requeued=_ending(verdicts, JobStatus.QUEUED),
            paused=_ending(verdicts, JobStatus.PAUSED),
            cancelled=_ending(verdicts, JobStatus.CANCELLED),
            failed=_ending(verdicts, JobStatus.FAILED),
            file_hints=file_hints,
            files_returned=_ending(files, FileStatus.UPLOADED),
            files_failed=_ending(files, FileStatus.ERROR),
        )


def _count_samples(result: Mapping[str, Any]) -> None:
    counts = result.get("samples", {})
    for verdict in ("rewritten", "passed_through", "kept", "removed", "quarantined"):
        SAMPLES_PROCESSED.labels("purify", verdict).inc(counts.get(verdict, 0))


def _takeable(owner: str, job_id: str | None, now: float) -> Any:
    leased = JobRow.status.in_([status.value for status in LEASED])
    free: ColumnElement[bool] = or_(
        JobRow.status == JobStatus.QUEUED.value,
        and_(leased, or_(JobRow.lease_until < now, JobRow.lease_owner == owner)),
    )
    query = select(JobRow).where(free)
    if job_id is not None:
        query = query.where(JobRow.id == job_id)
    return query.order_by(JobRow.id).limit(1).with_for_update(skip_locked=True)


def _expired(now: float) -> Any:
    leased = JobRow.status.in_([status.value for status in LEASED])
    query = select(JobRow).where(leased, JobRow.lease_until < now).order_by(JobRow.id)
    return query.with_for_update(skip_locked=True)


def _take(session: Session, job: JobRow, owner: str, lease_s: float, now: float) -> Claim:
    close_attempt(job, now)
    job.attempt += 1
    job.lease_owner, job.lease_until, job.claimed_at = owner, now + lease_s, now
    job.started_at = job.started_at or now
    if job.status != JobStatus.CANCELLING:
        job.status = JobStatus.VALIDATING_FILES.value
    settle_steps(session, job, {StepStatus.RUNNING: StepStatus.PENDING})
    drop_hint(session, job)
    note_status(session, job, f"attempt {job.attempt} began", now)
    return Claim(
        job_id=job.id,
        tenant=job.tenant,
        attempt=job.attempt,
        owner=owner,
        traceparent=job.traceparent,
    )


def _lose(session: Session, job: JobRow, max_losses: int, now: float) -> bool:
    """Count a lost attempt; fail the job and return True if it has been lost too often."""
    job.losses += 1
    after_commit(session, LEASES_EXPIRED.inc)
    if job.losses <= max_losses:
        return False
    message = f"the worker died {job.losses} times in a row without progress"
    _end_failed(session, job, JobError(code=ErrorCode.WORKER_LOST, message=message), now)
    return True


def _faults_in_a_row(session: Session, job: JobRow) -> int:
    """Count the attempts, backwards from this one, whose fault is in the history."""
    errors = select(EventRow.data).where(EventRow.job_id == job.id, EventRow.level == "error")
    broken = {data.get("attempt") for data in session.scalars(errors)}
    return next(n for n in itertools.count() if job.attempt - n not in broken)


def _repair(session: Session, job: JobRow, max_losses: int, now: float) -> JobStatus:
    """Decide what becomes of a job whose lease has expired."""
    if job.status == JobStatus.CANCELLING:
        end_cancelled(session, job, now)
    elif job.status == JobStatus.PAUSING:
        pause(session, job, "worker lost while pausing: job paused", now)
    elif not _lose(session, job, max_losses, now):
        requeue(session, job, "worker lost: job queued again", now)
    return JobStatus(job.status)


def _end_failed(session: Session, job: JobRow, error: JobError, now: float) -> None:
    job.error = error.model_dump(mode="json")
    settle_steps(
        session,
        job,
        {StepStatus.RUNNING: StepStatus.FAILED, StepStatus.PENDING: StepStatus.SKIPPED},
    )
    end(session, job, JobStatus.FAILED, f"job failed: {error.message}", now)


def _due_hints(session: Session, now: float, hint_after_s: float) -> tuple[str, ...]:
    query = select(OutboxRow).where(OutboxRow.due_at <= now).order_by(OutboxRow.job_id)
    due = session.scalars(query.with_for_update(skip_locked=True)).all()
    for row in due:
        row.due_at = now + hint_after_s
    return tuple(row.job_id for row in due)


def owned(session: Session, claim: Claim, *, lock: bool = True) -> JobRow:
    """Return the row if the claim still holds; an expired lease holds until someone takes it."""
    query = select(JobRow).where(
        JobRow.id == claim.job_id,
        JobRow.attempt == claim.attempt,
        JobRow.lease_owner == claim.owner,
        JobRow.status.in_([status.value for status in LEASED]),
    )
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise LeaseLost(claim.job_id, claim.attempt)
    return row


def _ending(verdicts: Mapping[str, StrEnum], status: StrEnum) -> tuple[str, ...]:
    return tuple(name for name, verdict in verdicts.items() if verdict is status)
