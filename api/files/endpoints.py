"""`/v1/files`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import FormData, UploadFile

from api import downloads
from api.access import FileIdInPath, Reader, Submitter
from api.answers import KEYED, refusals
from api.files import service
from api.gateway import AnyGateway
from api.idempotency import KEY_REFUSALS, IdempotencyKey
from schemas.errors import ErrorCode
from schemas.files import UPLOADABLE, File, FileDeleted, FilePurpose, FileValidation
from schemas.wire import Page
from storage.interfaces import Order

router = APIRouter(prefix="/v1/files", tags=["files"], responses=refusals(*KEYED))
FileCursor = Annotated[str | None, Query(pattern=r"^file_[0-9a-f]{32}$")]
UPLOAD_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "purpose"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "purpose": {"type": "string", "enum": list(UPLOADABLE)},
                },
            }
        }
    },
}


@router.post(
    "",
    status_code=201,
    responses=refusals(400, 408, 413, 415, ErrorCode.UNSAFE_FORMAT, *KEY_REFUSALS),
    openapi_extra={"requestBody": UPLOAD_FORM},
)
async def upload(
    request: Request,
    response: Response,
    gateway: AnyGateway,
    tenant: Submitter,
    key: IdempotencyKey,
) -> File:
    """Upload a zip or tar of LLaVA JSON and images, or as `checkpoint` a projector in safetensors.

    The key is checked before the body is read. An archive is then read by a worker; a job need not
    wait for that.
    """
    async with request.form(max_files=1, max_fields=8) as form:
        part, purpose = _read_form(form)
        given = (part.file, part.filename or "", purpose, key)
        created = await run_in_threadpool(service.store_upload, gateway, tenant, *given)
    response.headers["Location"] = f"/v1/files/{created.file.id}"
    if created.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return created.file


@router.get("")
def list_files(
    gateway: AnyGateway,
    tenant: Reader,
    purpose: FilePurpose | None = None,
    after: FileCursor = None,
    before: FileCursor = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
) -> Page[File]:
    """List files, newest first; `before` alone gives the page that ends there."""
    return gateway.jobs.list_files(
        tenant, purpose=purpose, after=after, before=before, limit=limit, order=order
    )


@router.get("/{file_id}", responses=refusals(404))
def get_file(gateway: AnyGateway, tenant: Reader, file_id: FileIdInPath) -> File:
    """Return a file's facts."""
    return gateway.jobs.get_file(tenant, file_id)


@router.get(
    "/{file_id}/validation",
    responses=refusals(404, ErrorCode.NOT_A_DATASET, ErrorCode.FILE_NOT_VALIDATED),
)
def get_validation(gateway: AnyGateway, tenant: Reader, file_id: FileIdInPath) -> FileValidation:
    """Return what was found in a dataset when it was last read, after its upload or by a job."""
    return service.validation(gateway, tenant, file_id)


@router.delete(
    "/{file_id}",
    responses=refusals(404, ErrorCode.FILE_IN_USE, ErrorCode.FILE_IS_RESULT),
)
def delete_file(gateway: AnyGateway, tenant: Submitter, file_id: FileIdInPath) -> FileDeleted:
    """Delete a file that no unfinished job reads; its being validated is no hindrance."""
    return service.delete(gateway, tenant, file_id)


@router.get("/{file_id}/content", response_class=Response, responses=refusals(404, 416))
def get_content(
    request: Request, gateway: AnyGateway, tenant: Reader, file_id: FileIdInPath
) -> Response:
    """Return a file's bytes (ETag, Range)."""
    item = service.content(gateway, tenant, file_id)
    return downloads.send(gateway.artifacts, item, request)


def _read_form(form: FormData) -> tuple[UploadFile, FilePurpose]:
    part, purpose = form.get("file"), form.get("purpose")
    errors: list[dict[str, Any]] = []
    if not isinstance(part, UploadFile):
        errors.append(_at("file", "send the file as the form's file `file`"))
    if purpose not in UPLOADABLE:
        errors.append(_at("purpose", f"purpose is one of {', '.join(UPLOADABLE)}"))
    if errors or not isinstance(part, UploadFile):
        raise RequestValidationError(errors)
    return part, FilePurpose(str(purpose))


def _at(field: str, message: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ("body", field), "msg": message}
