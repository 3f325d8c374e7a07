"""Jobs in SQL as the gateway sees them."""

from collections.abc import Mapping, Sequence

from sqlalchemy import BigInteger, ColumnElement, cast, delete, exists, func, select
from sqlalchemy.orm import Session

from schemas.files import FileStatus
from schemas.jobs import (
    TERMINAL,
    Event,
    Job,
    JobError,
    JobStatus,
    Metric,
    StageName,
    Step,
    StepStatus,
    Usage,
    stages_to_run,
)
from schemas.requests import METHOD_KINDS, DefenseJobCreate
from schemas.wire import Page
from storage.errors import (
    NotFound,
    QuotaExceeded,
    UnknownFile,
    UnknownModel,
    UnusableFile,
    WrongKind,
)
from storage.ids import new_id
from storage.interfaces import CreatedJob, Idempotency, Order
from storage.sql.backend import SqlBackend, after_commit, one_page, page_of
from storage.sql.engine import database_now
from storage.sql.files import find_file
from storage.sql.history import close_attempt, note_status, settle_steps
from storage.sql.idempotency import advisory_number, earlier_answer, keep_answer
from storage.sql.tables import (
    EventRow,
    FileRow,
    JobRow,
    MetadataRow,
    MetricRow,
    ModelRow,
    OutboxRow,
    ShardRow,
    StepRow,
)
from storage.sql.webhooks import announce_end, require_endpoint
from storage.telemetry.metrics import JOBS_CREATED, JOBS_FINISHED

HINT_GRACE_S = 30.0


class SqlJobs(SqlBackend):
    """A `GatewayStore`."""

    def create_job(
        self,
        tenant: str,
        request: DefenseJobCreate,
        idempotency: Idempotency | None = None,
        *,
        max_unfinished: int | None = None,
        traceparent: str | None = None,
    ) -> CreatedJob:
        """Write job, steps, first event, hint and idempotency row in one transaction."""
        with self._write() as session:
            now = database_now(session)
            earlier = earlier_answer(session, tenant, idempotency, Job, now)
            if earlier is not None:
                return CreatedJob(earlier, replayed=True)
            row = insert_job(session, tenant, request, now, max_unfinished)
            row.traceparent = traceparent
            job = resource(session, row)
            keep_answer(session, tenant, idempotency, job)
        return CreatedJob(job, replayed=False)

    def get_job(self, tenant: str, job_id: str) -> Job:
        """Return a job or raise `NotFound`."""
        with self._read() as session:
            return resource(session, find_job(session, tenant, job_id))

    def list_jobs(
        self,
        tenant: str,
        *,
        status: JobStatus | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        before: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> Page[Job]:
        """Return a page of jobs by id, that is, by time of creation."""
        query = select(JobRow).where(JobRow.tenant == tenant)
        if status is not None:
            query = query.where(JobRow.status == status.value)
        if model is not None:
            query = query.where(JobRow.model == model)
        for key, value in (metadata or {}).items():
            query = query.where(_labelled(key, value))
        with self._read() as session:
            rows, more = one_page(
                session, query, JobRow.id, after=after, before=before, limit=limit, order=order
            )
            return page_of(resources(session, rows), more)

    def list_events(
        self, tenant: str, job_id: str, *, after: str | int | None = None, limit: int = 100
    ) -> Page[Event]:
        """Return events oldest first; `after` is the id, or the `seq`, of the last one seen."""
        with self._read() as session:
            find_job(session, tenant, job_id)
            query = select(EventRow).where(EventRow.job_id == job_id)
            seen = _seq_of(session, job_id, after) if isinstance(after, str) else after
            rows, more = one_page(
                session, query, EventRow.seq, after=seen, limit=limit, order="asc"
            )
        return page_of([_event(row) for row in rows], more)

    def list_metrics(
        self,
        tenant: str,
        job_id: str,
        *,
        stage: StageName | None = None,
        after: str | None = None,
        limit: int = 1000,
    ) -> Page[Metric]:
        """Return metrics in the order of writing; `after` is the `last_id` of a page."""
        if after is not None and not after.isdecimal():
            raise NotFound(after)
        query = select(MetricRow).where(MetricRow.job_id == job_id)
        if stage is not None:
            query = query.where(MetricRow.stage == stage.value)
        seen = None if after is None else int(after)
        with self._read() as session:
            find_job(session, tenant, job_id)
            rows, more = one_page(
                session, query, MetricRow.seq, after=seen, limit=limit, order="asc"
            )
        first, last = (str(rows[0].seq), str(rows[-1].seq)) if rows else (None, None)
        data = [_metric(row) for row in rows]
        return Page(data=data, has_more=more, first_id=first, last_id=last)

    def last_events(self, tenant: str, job_id: str, *, limit: int) -> Sequence[Event]:
        """Return the newest events, the newest first."""
        query = select(EventRow).where(EventRow.job_id == job_id)
        with self._read() as session:
            find_job(session, tenant, job_id)
            rows = session.scalars(query.order_by(EventRow.seq.desc()).limit(limit)).all()
        return [_event(row) for row in rows]

    def metric_curve(self, tenant: str, job_id: str, *, most: int) -> Sequence[Metric]:
        """Return evenly spread metrics by their numbers, which have no gaps."""
        with self._read() as session:
            find_job(session, tenant, job_id)
            last = session.scalar(select(func.max(MetricRow.seq)).where(MetricRow.job_id == job_id))
            numbers = range(last or 0, 0, -max(1, (last or 0) // most))
            query = select(MetricRow).where(
                MetricRow.job_id == job_id, MetricRow.seq.in_(list(numbers))
            )
            rows = session.scalars(query.order_by(MetricRow.seq)).all()
        return [_metric(row) for row in rows]

    def published_manifest(self, tenant: str, job_id: str) -> str | None:
        """Return the key of a succeeded job's manifest, None while there is none."""
        with self._read() as session:
            return find_job(session, tenant, job_id).manifest_key


def resource(session: Session, job: JobRow) -> Job:
    """Return a job as clients see it."""
    (found,) = resources(session, [job])
    return found


def resources(session: Session, jobs: Sequence[JobRow]) -> list[Job]:
    """Return jobs as clients see them, with two queries however many they are."""
    ids = [job.id for job in jobs]
    steps: dict[str, list[Step]] = {name: [] for name in ids}
    files: dict[str, list[str]] = {name: [] for name in ids}
    known = select(StepRow).where(StepRow.job_id.in_(ids)).order_by(StepRow.position)
    for step in session.scalars(known):
        steps[step.job_id].append(_step(step))
    results = select(JobRow.id, FileRow.id).join(FileRow, FileRow.job_id == JobRow.id)
    for job_id, file_id in session.execute(results.where(JobRow.id.in_(ids)).order_by(FileRow.id)):
        files[job_id].append(file_id)
    return [_job(job, steps[job.id], files[job.id]) for job in jobs]


def _job(job: JobRow, steps: Sequence[Step], files: Sequence[str]) -> Job:
    request = DefenseJobCreate.model_validate(job.request)
    return Job(
        **{name: getattr(request, name) for name in DefenseJobCreate.model_fields},
        id=job.id,
        status=JobStatus(job.status),
        stage=StageName(job.stage) if job.stage else None,
        steps=list(steps),
        created_at=int(job.created_at),
        started_at=None if job.started_at is None else int(job.started_at),
        finished_at=None if job.finished_at is None else int(job.finished_at),
        attempt=job.attempt,
        retry_of=job.retry_of,
        usage=Usage(worker_seconds=round(job.worker_seconds, 3)) if job.attempt else None,
        result=job.result,
        result_files=list(files),
        error=JobError(**job.error) if job.error else None,
    )


def end_cancelled(session: Session, job: JobRow, now: float) -> None:
    """End a job as its owner asked; the caller holds the lock on its row."""
    settle_steps(
        session,
        job,
        {StepStatus.RUNNING: StepStatus.SKIPPED, StepStatus.PENDING: StepStatus.SKIPPED},
    )
    end(session, job, JobStatus.CANCELLED, "job cancelled", now)


def end(session: Session, job: JobRow, status: JobStatus, message: str, now: float) -> None:
    """Give a job its last status, drop its lease and any hint, and say so."""
    job.status, job.finished_at = status.value, now
    close_attempt(job, now)
    drop_hint(session, job)
    session.execute(delete(ShardRow).where(ShardRow.job_id == job.id))
    note_status(session, job, message, now)
    announce_end(session, job, status, now)
    reason = job.error["code"] if job.error and status is JobStatus.FAILED else ""
    after_commit(session, lambda: JOBS_FINISHED.labels(status.value, reason).inc())


def drop_hint(session: Session, job: JobRow) -> None:
    """Stop hinting at a job that is queued no more."""
    row = session.get(OutboxRow, job.id)
    if row is not None:
        session.delete(row)


def _require_inputs(session: Session, tenant: str, request: DefenseJobCreate) -> None:
    model = session.get(ModelRow, request.model)
    if model is None or request.model_revision not in (None, model.revision):
        raise UnknownModel(request.model)
    kind = METHOD_KINDS.get(request.method.type, model.kind)
    if kind != model.kind:
        raise WrongKind(f"{request.method.type}: {kind}", f"{model.id}: {model.kind}")
    if request.webhook is not None:
        require_endpoint(session, tenant, request.webhook)
    evaluation = request.evaluation
    named = {
        "/training_file": request.training_file,
        "/checkpoint_file": request.checkpoint_file,
        "/evaluation/triggered_file": evaluation.triggered_file if evaluation else None,
        "/evaluation/clean_file": evaluation.clean_file if evaluation else None,
    }
    for param, file_id in named.items():
        if file_id is not None:
            try:
                file = find_file(session, tenant, file_id, for_update={"read": True})
            except NotFound as error:
                raise UnknownFile(param) from error
            if file.status == FileStatus.ERROR:
                raise UnusableFile(param)


def insert_job(
    session: Session,
    tenant: str,
    request: DefenseJobCreate,
    now: float,
    max_unfinished: int | None,
    retry_of: str | None = None,
) -> JobRow:
    """Write a queued job with its steps, labels, hint and first event."""
    _require_quota(session, tenant, max_unfinished)
    _require_inputs(session, tenant, request)
    evaluation = request.evaluation
    job = JobRow(
        id=new_id("job"),
        tenant=tenant,
        status=JobStatus.QUEUED.value,
        request=request.model_dump(mode="json", exclude_none=True),
        model=request.model,
        training_file=request.training_file,
        triggered_file=evaluation.triggered_file if evaluation else None,
        clean_file=evaluation.clean_file if evaluation else None,
        checkpoint_file=request.checkpoint_file,
        created_at=now,
        attempt=0,
        worker_seconds=0.0,
        retry_of=retry_of,
    )
    session.add(job)
    session.flush()
    to_run = stages_to_run(request.stages)
    for position, name in enumerate(StageName):
        status = StepStatus.PENDING if name in to_run else StepStatus.SKIPPED
        session.add(StepRow(job_id=job.id, name=name.value, position=position, status=status.value))
    for key, value in request.metadata.items():
        session.add(MetadataRow(job_id=job.id, key=key, value=value))
    session.add(OutboxRow(job_id=job.id, due_at=now + HINT_GRACE_S))
    session.flush()
    note_status(session, job, "job created", now)
    after_commit(session, lambda: JOBS_CREATED.labels(request.method.type).inc())
    return job


def _require_quota(session: Session, tenant: str, max_unfinished: int | None) -> None:
    """Count under a lock of the tenant's, so that rivals cannot both be the last."""
    if max_unfinished is None:
        return
    if session.get_bind().dialect.name == "postgresql":
        number = cast(advisory_number("quota", tenant), BigInteger)
        session.execute(select(func.pg_advisory_xact_lock(number)))
    unfinished = JobRow.status.not_in([status.value for status in TERMINAL])
    query = select(func.count()).where(JobRow.tenant == tenant, unfinished)
    if (session.scalar(query) or 0) >= max_unfinished:
        raise QuotaExceeded(max_unfinished)


def _labelled(key: str, value: str) -> ColumnElement[bool]:
    return exists().where(
        MetadataRow.job_id == JobRow.id, MetadataRow.key == key, MetadataRow.value == value
    )


def find_job(session: Session, tenant: str, job_id: str, *, lock: bool = False) -> JobRow:
    """Return a tenant's row, locked if that is asked for, or raise `NotFound`."""
    query = select(JobRow).where(JobRow.id == job_id, JobRow.tenant == tenant)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(job_id)
    return row


def _seq_of(session: Session, job_id: str, event_id: str) -> int:
    query = select(EventRow.seq).where(EventRow.job_id == job_id, EventRow.id == event_id)
    seq = session.scalars(query).one_or_none()
    if seq is None:
        raise NotFound(event_id)
    return seq


def _step(row: StepRow) -> Step:
    return Step(**{name: getattr(row, name) for name in Step.model_fields})


def _event(row: EventRow) -> Event:
    columns = {name: getattr(row, name) for name in Event.model_fields if name != "object"}
    return Event(**columns | {"created_at": int(row.created_at)})


def _metric(row: MetricRow) -> Metric:
    return Metric(**{name: getattr(row, name) for name in Metric.model_fields})
