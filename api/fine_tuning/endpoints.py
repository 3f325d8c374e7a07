"""`/v1/fine_tuning/jobs`: what `/v1/defense/jobs` does, in OpenAI's wire shape."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query

from api.access import JobIdInPath, Reader, Submitter
from api.answers import KEYED, refusals
from api.fine_tuning import service
from api.gateway import AnyGateway
from api.idempotency import IdempotencyKey
from api.jobs import service as jobs
from api.jobs.endpoints import CREATION, JobCursor
from api.jobs.labels import METADATA_QUERY, LabelsInQuery
from api.strictness import StrictRoute
from schemas.errors import ErrorCode
from schemas.fine_tuning import (
    FineTuningCheckpoint,
    FineTuningEvent,
    FineTuningJob,
    FineTuningJobCreate,
)
from schemas.wire import Page

router = APIRouter(
    route_class=StrictRoute,
    prefix="/v1/fine_tuning/jobs",
    tags=["fine-tuning jobs"],
    responses=refusals(*KEYED),
)
CONFLICT = refusals(404, ErrorCode.JOB_STATUS_CONFLICT)


@router.post("", responses=refusals(400, 408, 413, *CREATION))
def create_job(
    gateway: AnyGateway, tenant: Submitter, body: FineTuningJobCreate, key: IdempotencyKey
) -> FineTuningJob:
    """Create a job."""
    created = jobs.create(gateway, tenant, service.request_of(body), key.of(body))
    return service.job(tenant, created.job)


@router.get("", openapi_extra=METADATA_QUERY)
def list_jobs(
    gateway: AnyGateway,
    tenant: Reader,
    labels: LabelsInQuery,
    after: JobCursor = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page[FineTuningJob]:
    """List jobs, newest first."""
    found = gateway.jobs.list_jobs(tenant, metadata=labels, after=after, limit=limit)
    return service.page(found, partial(service.job, tenant))


@router.get("/{job_id}", responses=refusals(404))
def get_job(gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath) -> FineTuningJob:
    """Return a job."""
    return service.job(tenant, gateway.jobs.get_job(tenant, job_id))


@router.post("/{job_id}/cancel", responses=refusals(404))
def cancel_job(gateway: AnyGateway, tenant: Submitter, job_id: JobIdInPath) -> FineTuningJob:
    """Cancel a job; one that has ended is returned as it is."""
    return service.job(tenant, gateway.jobs.request_cancel(tenant, job_id))


@router.post("/{job_id}/pause", responses=CONFLICT)
def pause_job(gateway: AnyGateway, tenant: Submitter, job_id: JobIdInPath) -> FineTuningJob:
    """Put a job aside until it is resumed."""
    return service.job(tenant, gateway.jobs.request_pause(tenant, job_id))


@router.post("/{job_id}/resume", responses=CONFLICT)
def resume_job(gateway: AnyGateway, tenant: Submitter, job_id: JobIdInPath) -> FineTuningJob:
    """Let a paused job go on."""
    return service.job(tenant, jobs.resume(gateway, tenant, job_id))


@router.get("/{job_id}/events", responses=refusals(404))
def list_events(
    gateway: AnyGateway,
    tenant: Reader,
    job_id: JobIdInPath,
    after: Annotated[str | None, Query(pattern=r"^evt_[0-9a-f]{32}$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> Page[FineTuningEvent]:
    """List events, oldest first."""
    found = gateway.jobs.list_events(tenant, job_id, after=after, limit=limit)
    return service.page(found, service.event)


@router.get("/{job_id}/checkpoints", responses=refusals(404))
def list_checkpoints(
    gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath
) -> Page[FineTuningCheckpoint]:
    """List the projectors that the job has published, as files."""
    return service.page(jobs.checkpoints(gateway, tenant, job_id), service.checkpoint)
