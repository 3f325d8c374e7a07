"""`/v1/defense/jobs`."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from api import downloads
from api.access import JobIdInPath, Reader, Submitter
from api.answers import refusals
from api.gateway import AnyGateway
from api.jobs import service
from schemas.artifacts import Manifest
from schemas.jobs import Event, Job, JobStatus, Metric, StageName
from schemas.reports import Report
from schemas.requests import DefenseJobCreate, ModelId
from schemas.wire import Page
from storage.interfaces import Order

router = APIRouter(
    prefix="/v1/defense/jobs", tags=["defense jobs"], responses=refusals(401, 403, 422, 503)
)
REPORT_HEADERS = {
    "Vary": "Accept",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")
]


@router.post("", status_code=201, responses=refusals(400, 413))
def create_job(
    gateway: AnyGateway,
    tenant: Submitter,
    body: DefenseJobCreate,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Create a job; the same Idempotency-Key within a day gives the same answer again."""
    created = service.create(gateway, tenant, body, idempotency_key)
    response.headers["Location"] = f"/v1/defense/jobs/{created.job.id}"
    if created.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return created.job


@router.get("")
def list_jobs(
    gateway: AnyGateway,
    tenant: Reader,
    status: JobStatus | None = None,
    model: ModelId | None = None,
    after: Annotated[str | None, Query(pattern=r"^job_[0-9a-f]{32}$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
) -> Page[Job]:
    """List jobs, newest first."""
    return gateway.jobs.list_jobs(
        tenant, status=status, model=model, after=after, limit=limit, order=order
    )


@router.get("/{job_id}", responses=refusals(404))
def get_job(gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath) -> Job:
    """Return a job."""
    return gateway.jobs.get_job(tenant, job_id)


@router.post("/{job_id}/cancel", responses=refusals(404))
def cancel_job(gateway: AnyGateway, tenant: Submitter, job_id: JobIdInPath) -> Job:
    """Cancel a job; one that has ended is returned as it is."""
    return gateway.jobs.request_cancel(tenant, job_id)


@router.get("/{job_id}/events", responses=refusals(404))
def list_events(
    gateway: AnyGateway,
    tenant: Reader,
    job_id: JobIdInPath,
    after: Annotated[str | None, Query(pattern=r"^evt_[0-9a-f]{32}$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[Event]:
    """List events, oldest first; `after` is the id of the last one seen."""
    return gateway.jobs.list_events(tenant, job_id, after=after, limit=limit)


@router.get("/{job_id}/metrics", responses=refusals(404))
def list_metrics(
    gateway: AnyGateway,
    tenant: Reader,
    job_id: JobIdInPath,
    stage: StageName | None = None,
    after: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Page[Metric]:
    """List training metrics, oldest first; `after` is the `last_id` of a page."""
    return gateway.jobs.list_metrics(tenant, job_id, stage=stage, after=after, limit=limit)


@router.get("/{job_id}/artifacts", responses=refusals(404, 409))
def get_manifest(gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath) -> Manifest:
    """Return the manifest of what the job has published."""
    return service.manifest(gateway, tenant, job_id)


@router.get(
    "/{job_id}/artifacts/{name}", response_class=Response, responses=refusals(404, 409, 416)
)
def get_artifact(
    request: Request, gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath, name: str
) -> Response:
    """Return one artifact's bytes (ETag, Range)."""
    item = service.artifact(gateway, tenant, job_id, name)
    return downloads.send(gateway.artifacts, item, request)


@router.get(
    "/{job_id}/report",
    response_model=Report,
    responses={
        **refusals(404, 409, 416),
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
    },
)
def get_report(
    request: Request, gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath
) -> Response:
    """Return the report as JSON, or as a page if the Accept header prefers HTML."""
    html = service.prefers_html(request.headers.get("accept", ""))
    item = service.report(gateway, tenant, job_id, html=html)
    return downloads.send(gateway.artifacts, item, request, REPORT_HEADERS)
