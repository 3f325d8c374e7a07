"""`/v1/uploads`."""

import base64
import binascii
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile

from api.access import Reader, Submitter, id_named
from api.answers import KEYED, refusals
from api.gateway import AnyGateway
from api.idempotency import KEY_REFUSALS, IdempotencyKey
from api.strictness import StrictRoute
from api.uploads import service
from schemas.errors import ErrorCode
from schemas.uploads import (
    PartNumber,
    PartUrls,
    PartUrlsRequest,
    Upload,
    UploadComplete,
    UploadCreate,
    UploadPart,
)
from storage.errors import DigestMismatch

router = APIRouter(
    prefix="/v1/uploads", tags=["uploads"], responses=refusals(*KEYED), route_class=StrictRoute
)
READ = 1 << 20
SHA256 = re.compile(r"(?:^|,)\s*sha-256=:(?P<value>[A-Za-z0-9+/=]+):")
BYTES = {"type": "string", "format": "binary"}
RAW_BODY = {"required": True, "content": {"application/octet-stream": {"schema": BYTES}}}
FORM_SCHEMA = {"type": "object", "required": ["data"], "properties": {"data": BYTES}}
FORM_BODY = {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}
PART_REFUSALS = (
    ErrorCode.UPLOAD_NOT_PENDING,
    ErrorCode.UPLOAD_INCOMPLETE,
    ErrorCode.PART_CONFLICT,
    ErrorCode.PART_BUSY,
)
UploadIdInPath = Annotated[str, Depends(id_named("upload_id"))]
NumberInPath = Annotated[PartNumber, Path(alias="number")]
ContentDigest = Annotated[
    str | None, Header(description="RFC 9530; `sha-256` is checked.", max_length=1000)
]


@router.post("", status_code=201, responses=refusals(400, 408, 413, *KEY_REFUSALS))
def create_upload(
    gateway: AnyGateway,
    tenant: Submitter,
    body: UploadCreate,
    response: Response,
    key: IdempotencyKey,
) -> Upload:
    """Begin an upload in parts of `part_size` bytes, of which only the last may be shorter.

    The same Idempotency-Key within a day gives the same upload, as it is by then.
    """
    upload, replayed = service.create(gateway, tenant, body, key.of(body))
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/v1/uploads/{upload.id}"
    return upload


@router.get("/{upload_id}", responses=refusals(404))
def get_upload(gateway: AnyGateway, tenant: Reader, upload_id: UploadIdInPath) -> Upload:
    """Return an upload with the parts that are held: what is missing is still to be sent."""
    return service.get(gateway, tenant, upload_id)


@router.put(
    "/{upload_id}/parts/{number}",
    responses=refusals(404, 408, 413, ErrorCode.DIGEST_MISMATCH, *PART_REFUSALS),
    openapi_extra={"requestBody": RAW_BODY},
)
async def put_part(
    request: Request,
    gateway: AnyGateway,
    tenant: Submitter,
    upload_id: UploadIdInPath,
    number: NumberInPath,
    content_digest: ContentDigest = None,
) -> UploadPart:
    """Store part `number`; the same bytes may be sent again."""
    sha256 = _sha256(content_digest)
    return await service.receive(gateway, tenant, upload_id, number, request.stream(), sha256)


@router.post(
    "/{upload_id}/parts",
    responses=refusals(400, 404, 408, 413, *PART_REFUSALS),
    openapi_extra={"requestBody": FORM_BODY},
)
async def post_part(
    request: Request, gateway: AnyGateway, tenant: Submitter, upload_id: UploadIdInPath
) -> UploadPart:
    """Store the form's file `data` as the next part."""
    async with request.form(max_files=1, max_fields=4) as form:
        data = form.get("data")
        if not isinstance(data, UploadFile):
            message = "send the part as the form's file `data`"
            error: dict[str, Any] = {"type": "value_error", "loc": ("body", "data"), "msg": message}
            raise RequestValidationError([error])
        return await service.receive(gateway, tenant, upload_id, None, _chunks(data))


@router.post("/{upload_id}/part_urls", responses=refusals(400, 404, ErrorCode.UPLOAD_NOT_PENDING))
def create_part_urls(
    gateway: AnyGateway, tenant: Submitter, upload_id: UploadIdInPath, body: PartUrlsRequest
) -> PartUrls:
    """Return where to PUT parts; a URL of the artifact store takes exactly the stated length."""
    return service.part_urls(gateway, tenant, upload_id, body.numbers)


@router.post(
    "/{upload_id}/complete",
    responses=refusals(
        400,
        404,
        415,
        ErrorCode.UNSAFE_FORMAT,
        ErrorCode.UPLOAD_NOT_PENDING,
        ErrorCode.UPLOAD_INCOMPLETE,
        ErrorCode.DIGEST_MISMATCH,
    ),
)
def complete_upload(
    gateway: AnyGateway, tenant: Submitter, upload_id: UploadIdInPath, body: UploadComplete
) -> Upload:
    """Make the parts one file."""
    return service.complete(gateway, tenant, upload_id, body)


@router.post("/{upload_id}/cancel", responses=refusals(404, ErrorCode.UPLOAD_NOT_PENDING))
def cancel_upload(gateway: AnyGateway, tenant: Submitter, upload_id: UploadIdInPath) -> Upload:
    """Cancel an upload and forget its parts."""
    return service.cancel(gateway, tenant, upload_id)


async def _chunks(data: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await data.read(READ):
        yield chunk


def _sha256(header: str | None) -> str | None:
    """Return the digest in hex; other algorithms are not ours to check."""
    match = SHA256.search(header or "")
    if match is None:
        return None
    try:
        return base64.b64decode(match["value"], validate=True).hex()
    except binascii.Error as error:
        raise DigestMismatch(header) from error
