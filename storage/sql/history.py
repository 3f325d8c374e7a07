"""What is written into a job's history, under the lock on the job's row."""

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from schemas.jobs import JobStatus, StepStatus
from storage.ids import new_id
from storage.interfaces import EventDraft, MetricDraft, StepUpdate
from storage.sql.backend import after_commit
from storage.sql.tables import EventRow, JobRow, MetricRow, StepRow
from storage.telemetry.metrics import STAGE_DURATION


def add_events(session: Session, job: JobRow, drafts: Iterable[EventDraft], now: float) -> None:
    """Append events; numbers have no gaps because the job's row is locked."""
    last = session.scalar(select(func.max(EventRow.seq)).where(EventRow.job_id == job.id)) or 0
    for seq, draft in enumerate(drafts, last + 1):
        session.add(
            EventRow(
                job_id=job.id,
                seq=seq,
                id=new_id("evt"),
                created_at=now,
                level=draft.level,
                type=draft.type,
                message=draft.message,
                data=dict(draft.data),
            )
        )
    session.flush()


def note_status(session: Session, job: JobRow, message: str, now: float) -> None:
    """Append the event of a change of status; a failure is an error, the rest is information."""
    event = EventDraft(
        message,
        level="error" if job.status == JobStatus.FAILED else "info",
        type="status",
        data={"status": job.status, "attempt": job.attempt},
    )
    add_events(session, job, [event], now)


def close_attempt(job: JobRow, now: float) -> None:
    """Take the lease away and add up what the attempt has cost; harmless if there is none."""
    if job.claimed_at is not None:
        until = now if job.lease_until is None else min(now, job.lease_until)
        job.worker_seconds += max(0.0, until - job.claimed_at)
    job.claimed_at = job.lease_owner = job.lease_until = None


def add_metrics(session: Session, job: JobRow, drafts: Iterable[MetricDraft], now: float) -> None:
    """Append metrics, or replace those of a training step that an attempt repeats."""
    last = session.scalar(select(func.max(MetricRow.seq)).where(MetricRow.job_id == job.id)) or 0
    for draft in drafts:
        row = session.scalars(
            select(MetricRow).where(
                MetricRow.job_id == job.id,
                MetricRow.stage == draft.stage.value,
                MetricRow.step == draft.step,
            )
        ).one_or_none()
        if row is None:
            last += 1
            row = MetricRow(job_id=job.id, seq=last, stage=draft.stage.value, step=draft.step)
            session.add(row)
        row.values = dict(draft.values)
        row.created_at = now
    session.flush()


def update_step(session: Session, job: JobRow, update: StepUpdate, now: float) -> bool:
    """Apply an update and tell whether the step got further than any attempt before."""
    step = session.get_one(StepRow, (job.id, update.name.value))
    step.attempt = job.attempt
    for name in ("done", "total", "unit", "reused"):
        if (value := getattr(update, name)) is not None:
            setattr(step, name, value)
    if update.status is not None:
        _set_step_status(session, step, update.status, now)
        if update.status is StepStatus.RUNNING:
            job.stage = step.name
    return _got_further(step)


def settle_steps(session: Session, job: JobRow, became: dict[StepStatus, StepStatus]) -> None:
    """Move the steps that an attempt left in some status to another."""
    for step in session.scalars(select(StepRow).where(StepRow.job_id == job.id)):
        step.status = became.get(StepStatus(step.status), StepStatus(step.status)).value


def _set_step_status(session: Session, step: StepRow, status: StepStatus, now: float) -> None:
    if status is StepStatus.RUNNING and step.status != StepStatus.RUNNING:
        step.started_at, step.finished_at = now, None
    if status in (StepStatus.SUCCEEDED, StepStatus.FAILED):
        step.finished_at = now
        if status is StepStatus.SUCCEEDED and step.started_at is not None and not step.reused:
            seconds, stage = now - step.started_at, step.name
            after_commit(session, lambda: STAGE_DURATION.labels(stage).observe(seconds))
    step.status = status.value


def _got_further(step: StepRow) -> bool:
    further = step.done > step.furthest
    step.furthest = max(step.furthest, step.done)
    if step.status == StepStatus.SUCCEEDED and not step.completed:
        step.completed = further = True
    return further
