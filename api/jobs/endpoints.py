"""`/v1/defense/jobs`."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import downloads
from api.access import JobIdInPath, Reader, Submitter
from api.answers import KEYED, refusals
from api.gateway import AnyGateway
from api.idempotency import KEY_REFUSALS, IdempotencyKey
from api.jobs import service
from api.jobs.labels import METADATA_QUERY, LabelsInQuery
from api.strictness import StrictRoute
from schemas.artifacts import Manifest
from schemas.errors import ErrorCode
from schemas.jobs import Checkpoint, Job, JobDeleted, JobStatus, Metric, StageName
from schemas.reports import Report
from schemas.requests import DefenseJobCreate, ModelId
from schemas.wire import Page
from storage.interfaces import CreatedJob, Order

router = APIRouter(
    prefix="/v1/defense/jobs",
    tags=["defense jobs"],
    responses=refusals(*KEYED),
    route_class=StrictRoute,
)
REPORT_HEADERS = {
    "Vary": "Accept",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
CREATION = (
    ErrorCode.MODEL_NOT_FOUND,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.FILE_NOT_FOUND,
    ErrorCode.INVALID_DATASET,
    ErrorCode.WEBHOOK_NOT_FOUND,
    *KEY_REFUSALS,
    ErrorCode.QUOTA_EXCEEDED,
)
JobCursor = Annotated[str | None, Query(pattern=r"^job_[0-9a-f]{32}$")]


@router.post("", status_code=201, responses=refusals(400, 408, 413, *CREATION))
def create_job(
    gateway: AnyGateway,
    tenant: Submitter,
    body: DefenseJobCreate,
    response: Response,
    key: IdempotencyKey,
) -> Job:
    """Create a job; the same Idempotency-Key within a day gives the same answer again."""
    return _created(service.create(gateway, tenant, body, key.of(body)), response)


@router.get("", openapi_extra=METADATA_QUERY)
def list_jobs(
    gateway: AnyGateway,
    tenant: Reader,
    labels: LabelsInQuery,
    status: JobStatus | None = None,
    model: ModelId | None = None,
    after: JobCursor = None,
    before: JobCursor = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
) -> Page[Job]:
    """List jobs, newest first; `before` alone gives the page that ends there."""
    return gateway.jobs.list_jobs(
        tenant,
        status=status,
        model=model,
        metadata=labels,
        after=after,
        before=before,
        limit=limit,
        order=order,
    )


@router.get("/{job_id}", responses=refusals(404))
def get_job(gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath) -> Job:
    """Return a job."""
    return gateway.jobs.get_job(tenant, job_id)


@router.delete(
    "/{job_id}",
    responses=refusals(404, ErrorCode.JOB_STATUS_CONFLICT, ErrorCode.FILE_IN_USE),
)
def delete_job(gateway: AnyGateway, tenant: Submitter, job_id: JobIdInPath) -> JobDeleted:
    """Delete a job that has ended, with its history and everything that it published."""
    return service.delete(gateway, tenant, job_id)


@router.post("/{job_id}/cancel", responses=refusals(404))
def cancel_job(gateway: AnyGateway, tenant: Submitter, job_id: JobIdInPath) -> Job:
    """Cancel a job; one that has ended is returned as it is."""
    return gateway.jobs.request_cancel(tenant, job_id)


@router.post("/{job_id}/pause", responses=refusals(404, ErrorCode.JOB_STATUS_CONFLICT))
def pause_job(gateway: AnyGateway, tenant: Submitter, job_id: JobIdInPath) -> Job:
    """Put a job aside until it is resumed; one at work saves what it has done first."""
    return gateway.jobs.request_pause(tenant, job_id)


@router.post("/{job_id}/resume", responses=refusals(404, ErrorCode.JOB_STATUS_CONFLICT))
def resume_job(gateway: AnyGateway, tenant: Submitter, job_id: JobIdInPath) -> Job:
    """Let a paused job go on."""
    return service.resume(gateway, tenant, job_id)


@router.post(
    "/{job_id}/retry",
    status_code=201,
    responses=refusals(404, ErrorCode.JOB_STATUS_CONFLICT, *CREATION),
)
def retry_job(
    gateway: AnyGateway,
    tenant: Submitter,
    job_id: JobIdInPath,
    response: Response,
    key: IdempotencyKey,
) -> Job:
    """Create a job with the request of one that has failed or was cancelled."""
    return _created(service.retry(gateway, tenant, job_id, key.of()), response)


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


@router.get("/{job_id}/checkpoints", responses=refusals(404))
def list_checkpoints(gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath) -> Page[Checkpoint]:
    """List the projectors that the job has published; none before it has succeeded."""
    return service.checkpoints(gateway, tenant, job_id)


@router.get("/{job_id}/artifacts", responses=refusals(404, ErrorCode.JOB_NOT_FINISHED))
def get_manifest(gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath) -> Manifest:
    """Return the manifest of what the job has published."""
    return service.manifest(gateway, tenant, job_id)


@router.get(
    "/{job_id}/artifacts/{name}",
    response_class=Response,
    responses=refusals(404, ErrorCode.JOB_NOT_FINISHED, 416),
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
        **refusals(404, ErrorCode.JOB_NOT_FINISHED, 416),
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


def _created(created: CreatedJob, response: Response) -> Job:
    response.headers["Location"] = f"/v1/defense/jobs/{created.job.id}"
    if created.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return created.job
