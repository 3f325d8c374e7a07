"""`/v1/defense/jobs/{job_id}/samples`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.access import JobIdInPath, Reader
from api.answers import KEYED, refusals
from api.gateway import AnyGateway
from api.samples import service
from api.samples.picture import grey_png
from schemas.errors import ErrorCode
from schemas.samples import Sample, SampleSaliency, SampleStatus, Verdict
from schemas.wire import Page

router = APIRouter(
    prefix="/v1/defense/jobs/{job_id}/samples", tags=["defense jobs"], responses=refusals(*KEYED)
)
MISSING = refusals(404, ErrorCode.JOB_NOT_FINISHED)
PNG = "image/png"
SampleIdInPath = Annotated[str, Path(min_length=1, max_length=1000)]


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


@router.get("/{sample_id:path}/saliency.json", responses=MISSING)
def get_saliency(
    gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath, sample_id: SampleIdInPath
) -> SampleSaliency:
    """Return a sample's map of saliency; there is none if the job was not to detect."""
    return service.saliency(gateway, tenant, job_id, sample_id)


@router.get(
    "/{sample_id:path}/saliency.png",
    response_class=Response,
    responses={**MISSING, 200: {"content": {PNG: {}}}},
)
def get_saliency_picture(
    gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath, sample_id: SampleIdInPath
) -> Response:
    """Return the same map as a picture in shades of grey, to be laid over the sample's own."""
    found = service.saliency(gateway, tenant, job_id, sample_id)
    headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(grey_png(found.values), media_type=PNG, headers=headers)


@router.get("/{sample_id:path}", responses=MISSING)
def get_sample(
    gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath, sample_id: SampleIdInPath
) -> Sample:
    """Return one sample by its id in the dataset."""
    return service.find(gateway, tenant, job_id, sample_id)
