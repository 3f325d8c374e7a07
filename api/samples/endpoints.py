"""`/v1/defense/jobs/{job_id}/samples`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.access import JobIdInPath, Reader
from api.answers import KEYED, refusals
from api.gateway import AnyGateway
from api.samples import service
from schemas.errors import ErrorCode
from schemas.samples import Sample, SampleStatus, Verdict
from schemas.wire import Page

router = APIRouter(
    prefix="/v1/defense/jobs/{job_id}/samples", tags=["defense jobs"], responses=refusals(*KEYED)
)
MISSING = refusals(404, ErrorCode.JOB_NOT_FINISHED)


@router.get("", responses=MISSING)
def list_samples(
    gateway: AnyGateway,
    tenant: Reader,
    job_id: JobIdInPath,
    status: SampleStatus | None = None,
    verdict: Verdict | None = None,
    min_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    after: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[Sample]:
    """List samples in the order of the published file; `after` is the `last_id` of a page.

    A filter that few samples pass may give a short page that has more.
    """
    wanted = service.Wanted(status, verdict, min_score)
    return service.page(gateway, tenant, job_id, wanted, int(after or 0), limit)


@router.get("/{sample_id:path}", responses=MISSING)
def get_sample(
    gateway: AnyGateway,
    tenant: Reader,
    job_id: JobIdInPath,
    sample_id: Annotated[str, Path(min_length=1, max_length=1000)],
) -> Sample:
    """Return one sample by its id in the dataset."""
    return service.find(gateway, tenant, job_id, sample_id)
