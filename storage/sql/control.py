"""What a job's owner may ask of it: to stop, to wait, to go on, to be done again, to be forgotten.

Every transition is made under the lock on the job's row, so of two that race one comes first and
the other meets its result.
"""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from schemas.jobs import STOPPING, TERMINAL, WORKING, Job, JobStatus, StepStatus
from schemas.requests import DefenseJobCreate
from storage.errors import JobStatusConflict
from storage.interfaces import CreatedJob, Idempotency
from storage.sql.backend import SqlBackend
from storage.sql.engine import database_now
from storage.sql.files import require_unread
from storage.sql.history import close_attempt, note_status, settle_steps
from storage.sql.idempotency import earlier_answer, keep_answer
from storage.sql.jobs import drop_hint, end_cancelled, find_job, insert_job, resource
from storage.sql.tables import (
    EventRow,
    FileRow,
    JobRow,
    MetadataRow,
    MetricRow,
    OutboxRow,
    SampleRow,
    ShardRow,
    StepRow,
)

WAITING = frozenset({JobStatus.QUEUED, JobStatus.PAUSED})
PAUSES = frozenset({JobStatus.PAUSING, JobStatus.PAUSED})
REPEATABLE = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})


class SqlControl(SqlBackend):
    """The part of a `GatewayStore` that changes jobs."""

    def request_cancel(self, tenant: str, job_id: str) -> Job:
        """Cancel a waiting job at once, ask a running one to stop, leave a finished one alone."""
        with self._write() as session:
            job = find_job(session, tenant, job_id, lock=True)
            now = database_now(session)
            if job.status in WAITING:
                end_cancelled(session, job, now)
            elif job.status not in TERMINAL and job.status != JobStatus.CANCELLING:
                job.status = JobStatus.CANCELLING.value
                note_status(session, job, "cancellation requested", now)
            return resource(session, job)

    def request_pause(self, tenant: str, job_id: str) -> Job:
        """Pause a queued job at once, ask a running one to save its work and stop."""
        with self._write() as session:
            job = find_job(session, tenant, job_id, lock=True)
            now = database_now(session)
            if job.status == JobStatus.QUEUED:
                pause(session, job, "job paused", now)
            elif job.status in WORKING:
                job.status = JobStatus.PAUSING.value
                note_status(session, job, "pause requested", now)
            elif job.status not in PAUSES:
                raise JobStatusConflict(job.status)
            return resource(session, job)

    def resume_job(self, tenant: str, job_id: str) -> Job:
        """Queue a paused job again; let one that is pausing go on."""
        with self._write() as session:
            job = find_job(session, tenant, job_id, lock=True)
            now = database_now(session)
            if job.status == JobStatus.PAUSED:
                requeue(session, job, "job resumed: queued again", now)
            elif job.status == JobStatus.PAUSING:
                job.status = JobStatus.RUNNING.value
                note_status(session, job, "pause withdrawn", now)
            elif job.status in TERMINAL | STOPPING:
                raise JobStatusConflict(job.status)
            return resource(session, job)

    def retry_job(
        self,
        tenant: str,
        job_id: str,
        idempotency: Idempotency | None = None,
        *,
        max_unfinished: int | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob:
        """Create a job with the request of one that has failed or was cancelled."""
        with self._write() as session:
            now = database_now(session)
            earlier = earlier_answer(session, tenant, idempotency, Job, now)
            if earlier is not None:
                return CreatedJob(earlier, replayed=True)
            old = find_job(session, tenant, job_id)
            if old.status not in REPEATABLE:
                raise JobStatusConflict(old.status)
            request = DefenseJobCreate.model_validate(old.request)
            row = insert_job(session, tenant, request, now, max_unfinished, retry_of=old.id)
            row.traceparent = traceparent
            job = resource(session, row)
            keep_answer(session, tenant, idempotency, job)
        return CreatedJob(job, replayed=False)

    def delete_job(self, tenant: str, job_id: str) -> None:
        """Remove a job that has ended, with its history and the rows of its result files."""
        with self._write() as session:
            job = find_job(session, tenant, job_id, lock=True)
            if job.status not in TERMINAL:
                raise JobStatusConflict(job.status)
            results = select(FileRow).where(FileRow.job_id == job_id).with_for_update()
            for file in session.scalars(results):
                require_unread(session, file.id)
                session.delete(file)
            for history in (
                StepRow,
                MetadataRow,
                EventRow,
                MetricRow,
                OutboxRow,
                ShardRow,
                SampleRow,
            ):
                session.execute(delete(history).where(history.job_id == job_id))
            session.delete(job)


def pause(session: Session, job: JobRow, message: str, now: float) -> None:
    """Put a job aside: no worker gets it until it is resumed; the caller holds its lock."""
    job.status = JobStatus.PAUSED.value
    close_attempt(job, now)
    drop_hint(session, job)
    settle_steps(session, job, {StepStatus.RUNNING: StepStatus.PENDING})
    note_status(session, job, message, now)


def requeue(session: Session, job: JobRow, message: str, now: float) -> None:
    """Let any worker take the job, and have it hinted at; the caller holds its lock."""
    job.status = JobStatus.QUEUED.value
    close_attempt(job, now)
    settle_steps(session, job, {StepStatus.RUNNING: StepStatus.PENDING})
    session.add(OutboxRow(job_id=job.id, due_at=now))
    session.flush()
    note_status(session, job, message, now)
