"""Creating defense jobs and reading what they left."""

import hashlib

from api.downloads import Download
from api.errors import JobNotFinished
from api.gateway import Gateway
from schemas.artifacts import ArtifactEntry, Manifest
from schemas.requests import DefenseJobCreate
from storage.errors import NotFound
from storage.interfaces import CreatedJob, Idempotency
from storage.telemetry.traces import current_traceparent

REPORT_JSON, REPORT_HTML = "report.json", "report.html"


def create(
    gateway: Gateway, tenant: str, request: DefenseJobCreate, idempotency_key: str | None
) -> CreatedJob:
    """Commit the job, then hint at it; a replay hints at nothing."""
    idempotency = None
    if idempotency_key is not None:
        body = request.model_dump_json(exclude_unset=True).encode()
        idempotency = Idempotency(idempotency_key, hashlib.sha256(body).hexdigest())
    created = gateway.jobs.create_job(
        tenant, request, idempotency, traceparent=current_traceparent()
    )
    if not created.replayed:
        gateway.queue.hint(created.job.id)
    return created


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
