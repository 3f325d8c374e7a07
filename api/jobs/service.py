"""Creating defense jobs and reading what they left."""

from api.downloads import Download
from api.errors import JobNotFinished
from api.gateway import Gateway
from schemas.artifacts import ArtifactEntry, Manifest
from schemas.jobs import Checkpoint, Job, JobDeleted, JobStatus, Metric, StageName
from schemas.requests import DefenseJobCreate
from schemas.wire import Page
from storage.errors import NotFound
from storage.interfaces import CreatedJob, Idempotency
from storage.keys import job_prefix
from storage.telemetry.traces import current_traceparent

REPORT_JSON, REPORT_HTML, PROJECTOR = "report.json", "report.html", "mm_projector.safetensors"


def create(
    gateway: Gateway, tenant: str, request: DefenseJobCreate, idempotency: Idempotency | None
) -> CreatedJob:
    """Commit the job, then hint at it; a replay hints at nothing."""
    created = gateway.jobs.create_job(
        tenant,
        request,
        idempotency,
        max_unfinished=gateway.max_unfinished_jobs,
        traceparent=current_traceparent(),
    )
    return _hinted(gateway, created)


def retry(
    gateway: Gateway, tenant: str, job_id: str, idempotency: Idempotency | None
) -> CreatedJob:
    """Commit a job like an earlier one, then hint at it."""
    created = gateway.jobs.retry_job(
        tenant,
        job_id,
        idempotency,
        max_unfinished=gateway.max_unfinished_jobs,
        traceparent=current_traceparent(),
    )
    return _hinted(gateway, created)


def resume(gateway: Gateway, tenant: str, job_id: str) -> Job:
    """Queue the job again, then hint at it."""
    job = gateway.jobs.resume_job(tenant, job_id)
    if job.status is JobStatus.QUEUED:
        gateway.queue.hint(job_id)
    return job


def delete(gateway: Gateway, tenant: str, job_id: str) -> JobDeleted:
    """Forget the rows first: bytes without a row are waste, a row without bytes is a lie."""
    gateway.jobs.delete_job(tenant, job_id)
    for key in list(gateway.artifacts.keys(job_prefix(tenant, job_id))):
        gateway.artifacts.delete(key)
    return JobDeleted(id=job_id)


def checkpoints(gateway: Gateway, tenant: str, job_id: str) -> Page[Checkpoint]:
    """Return the projector among the job's files, with the last metrics of its training."""
    job = gateway.jobs.get_job(tenant, job_id)
    files = [gateway.jobs.get_file(tenant, file_id) for file_id in job.result_files]
    last = _last_metric(gateway, tenant, job_id) if files else None
    found = [
        Checkpoint(
            id=file.id,
            job_id=job_id,
            created_at=file.created_at,
            stage=StageName.RETRAIN,
            step=last.step if last else None,
            metrics=last.values if last else {},
            artifact=file.filename,
            bytes=file.bytes,
            sha256=file.sha256,
        )
        for file in files
        if file.filename == PROJECTOR
    ]
    first_id, last_id = (found[0].id, found[-1].id) if found else (None, None)
    return Page(data=found, has_more=False, first_id=first_id, last_id=last_id)


def manifest(gateway: Gateway, tenant: str, job_id: str) -> Manifest:
    """Return what a succeeded job has published."""
    key = gateway.jobs.published_manifest(tenant, job_id)
    if key is None:
        raise JobNotFinished()
    return Manifest.model_validate_json(gateway.artifacts.get(key))


def artifact(gateway: Gateway, tenant: str, job_id: str, name: str) -> Download:
    """Return one artifact for saving under its own name."""
    entry = _entry(manifest(gateway, tenant, job_id), name)
    return Download(entry.key, entry.bytes, entry.sha256, entry.media_type, filename=name)


def report(gateway: Gateway, tenant: str, job_id: str, *, html: bool) -> Download:
    """Return the report for reading in place."""
    name, media_type = (
        (REPORT_HTML, "text/html; charset=utf-8") if html else (REPORT_JSON, "application/json")
    )
    entry = _entry(manifest(gateway, tenant, job_id), name)
    return Download(entry.key, entry.bytes, entry.sha256, media_type)


def prefers_html(accept: str) -> bool:
    """Tell whether an Accept header ranks HTML above JSON; JSON wins a tie."""
    weights = {"text/html": 0.0, "application/json": 0.0, "*/*": 0.0}
    for part in accept.split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        if media_type in weights:
            weights[media_type] = _weight(parameters)
    return weights["text/html"] > max(weights["application/json"], weights["*/*"])


def _hinted(gateway: Gateway, created: CreatedJob) -> CreatedJob:
    if not created.replayed:
        gateway.queue.hint(created.job.id)
    return created


def _last_metric(gateway: Gateway, tenant: str, job_id: str) -> Metric | None:
    last, after, more = None, None, True
    while more:
        page = gateway.jobs.list_metrics(tenant, job_id, stage=StageName.RETRAIN, after=after)
        last = page.data[-1] if page.data else last
        after, more = page.last_id, page.has_more
    return last


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _entry(published: Manifest, name: str) -> ArtifactEntry:
    for entry in published.artifacts:
        if entry.name == name:
            return entry
    raise NotFound(name)
