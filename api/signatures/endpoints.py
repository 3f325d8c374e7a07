"""`/v1/signing_key` and `/v1/defense/jobs/{job_id}/report/signature`."""

from fastapi import APIRouter

from api.access import JobIdInPath, Reader
from api.answers import KEYED, refusals
from api.gateway import AnyGateway
from api.signatures import service
from schemas.errors import ErrorCode
from schemas.signatures import ReportSignature, SigningKey

router = APIRouter(tags=["signatures"])


@router.get("/v1/signing_key", responses=refusals(401, 403, 404, 429, 503))
def get_signing_key(gateway: AnyGateway, _: Reader) -> SigningKey:
    """Return the public key by which this deployment signs; 404 if it does not."""
    return service.signing_key(gateway)


@router.get(
    "/v1/defense/jobs/{job_id}/report/signature",
    responses=refusals(*KEYED, 404, ErrorCode.JOB_NOT_FINISHED),
)
def get_report_signature(
    gateway: AnyGateway, tenant: Reader, job_id: JobIdInPath
) -> ReportSignature:
    """Return the deployment's signature of `report.json`; 404 if it has no key."""
    return service.sign_report(gateway, tenant, job_id)
