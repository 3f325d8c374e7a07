"""From what went wrong to HTTP: the only place that maps meaning to a status."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPMethod, HTTPStatus
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.tally import count_refusal
from schemas.errors import ErrorBody, ErrorCode, FieldError, Problem
from schemas.requests import METHOD_TYPES
from storage import errors as storage

log = structlog.get_logger()
PROBLEM = "application/problem+json"


class Refusal(HTTPException):
    """The gateway will not do this; a subclass's docstring is the message."""

    status: ClassVar[int] = 400

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        """Take headers that belong to the answer."""
        super().__init__(self.status, detail=_message(type(self)), headers=headers)


class Unauthenticated(Refusal):
    """Send a valid key as `Authorization: Bearer disp_…`."""

    status = 401


class Forbidden(Refusal):
    """This API key lacks the scope that the call needs."""

    status = 403


class FileNotValidated(Refusal):
    """Nobody has read this file yet: an upload is read at once, a job's result by the next job."""

    status = 409


class NotADataset(Refusal):
    """A checkpoint is no dataset: its header was checked at upload, its values are by each job."""

    status = 404


class JobNotFinished(Refusal):
    """The job has published no artifacts: wait until its status is `succeeded`."""

    status = 409


class BodyTooSlow(Refusal):
    """The body comes too slowly: send it again, in parts where the way is narrow."""

    status = 408


class PayloadTooLarge(Refusal):
    """The body is longer than this service accepts."""

    status = 413


class UnsupportedFormat(Refusal):
    """Upload a zip or tar archive (the tar may be compressed with gzip)."""

    status = 415


class UnsafeFormat(Refusal):
    """Weights are taken as safetensors only: convert them where reading a pickle does no harm."""

    status = 415


class UrlNotAllowed(Refusal):
    """Webhooks go to https URLs of public hosts, without a user, a password or a fragment."""

    status = 422


class RangeNotSatisfiable(Refusal):
    """The object has no such bytes."""

    status = 416


class RateLimited(Refusal):
    """This tenant sends more requests than it may: wait for the seconds that Retry-After says."""

    status = 429


CODES: Mapping[type[Exception], tuple[int, ErrorCode]] = {
    Unauthenticated: (401, ErrorCode.UNAUTHENTICATED),
    Forbidden: (403, ErrorCode.FORBIDDEN),
    FileNotValidated: (409, ErrorCode.FILE_NOT_VALIDATED),
    NotADataset: (404, ErrorCode.NOT_A_DATASET),
    JobNotFinished: (409, ErrorCode.JOB_NOT_FINISHED),
    BodyTooSlow: (408, ErrorCode.REQUEST_TIMEOUT),
    PayloadTooLarge: (413, ErrorCode.PAYLOAD_TOO_LARGE),
    UnsupportedFormat: (415, ErrorCode.UNSUPPORTED_FORMAT),
    UnsafeFormat: (415, ErrorCode.UNSAFE_FORMAT),
    UrlNotAllowed: (422, ErrorCode.URL_REFUSED),
    RangeNotSatisfiable: (416, ErrorCode.RANGE_NOT_SATISFIABLE),
    RateLimited: (429, ErrorCode.RATE_LIMITED),
    storage.NotFound: (404, ErrorCode.NOT_FOUND),
    storage.KeyRefused: (404, ErrorCode.NOT_FOUND),
    storage.FileInUse: (409, ErrorCode.FILE_IN_USE),
    storage.UploadNotPending: (409, ErrorCode.UPLOAD_NOT_PENDING),
    storage.UploadIncomplete: (409, ErrorCode.UPLOAD_INCOMPLETE),
    storage.PartConflict: (409, ErrorCode.PART_CONFLICT),
    storage.PartBusy: (409, ErrorCode.PART_BUSY),
    storage.DigestMismatch: (422, ErrorCode.DIGEST_MISMATCH),
    storage.FileIsResult: (409, ErrorCode.FILE_IS_RESULT),
    storage.JobStatusConflict: (409, ErrorCode.JOB_STATUS_CONFLICT),
    storage.IdempotencyInFlight: (409, ErrorCode.IDEMPOTENCY_IN_FLIGHT),
    storage.QuotaExceeded: (429, ErrorCode.QUOTA_EXCEEDED),
    storage.UnknownFile: (422, ErrorCode.FILE_NOT_FOUND),
    storage.UnusableFile: (422, ErrorCode.INVALID_DATASET),
    storage.UnknownModel: (422, ErrorCode.MODEL_NOT_FOUND),
    storage.WrongKind: (422, ErrorCode.INVALID_REQUEST),
    storage.UnknownWebhook: (422, ErrorCode.WEBHOOK_NOT_FOUND),
    storage.TooManyWebhooks: (409, ErrorCode.LIMIT_REACHED),
    storage.IdempotencyKeyReused: (422, ErrorCode.IDEMPOTENCY_KEY_REUSED),
    storage.StoreAway: (503, ErrorCode.UNAVAILABLE),
}
BY_STATUS: Mapping[int, ErrorCode] = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
}
STATUSES: Mapping[ErrorCode, int] = {
    **{code: status for status, code in CODES.values()},
    **{code: status for status, code in BY_STATUS.items()},
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.VALIDATION_ERROR: 422,
    ErrorCode.INTERNAL_ERROR: 500,
}
"""Which status each code is answered with; the codes that are missing only ever fail a job."""
RETRY_AFTER_S: Mapping[type[Exception], int] = {
    storage.IdempotencyInFlight: 1,
    storage.QuotaExceeded: 60,
    storage.StoreAway: 5,
}
PARAMS: Mapping[type[Exception], str] = {
    storage.UnknownModel: "/model",
    storage.WrongKind: "/method",
    storage.UnknownWebhook: "/webhook",
    UrlNotAllowed: "/url",
    storage.IdempotencyKeyReused: "Idempotency-Key",
    storage.IdempotencyInFlight: "Idempotency-Key",
}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(HTTPException, _counted(_answer_http))
    app.add_exception_handler(storage.StorageError, _counted(_answer_storage))
    app.add_exception_handler(RequestValidationError, _counted(_answer_validation))
    app.add_exception_handler(ClientDisconnect, _counted(_answer_nobody))
    app.add_exception_handler(Exception, _counted(_answer_fault))


class ProblemResponse(JSONResponse):
    """A problem document that still knows its code."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None) -> None:
        """Render `problem` with its own status."""
        content = problem.model_dump(mode="json", by_alias=True)
        super().__init__(content, problem.status, headers=dict(headers or {}), media_type=PROBLEM)
        self.code = problem.error.code


Answer = Callable[[Request, Exception], Awaitable[ProblemResponse]]


def _counted(answer: Answer) -> Answer:
    async def counted(request: Request, error: Exception) -> ProblemResponse:
        response = await answer(request, error)
        count_refusal(request.method, request.url.path, response.code)
        return response

    return counted


def problem(
    status: int,
    code: ErrorCode,
    detail: str,
    *,
    param: str | None = None,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """Return an answer that RFC 9457 readers and OpenAI clients both understand."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = Problem(
        type=f"urn:disp:error:{code.value}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        error=ErrorBody(message=detail, type=kind, param=param, code=code),
        errors=list(errors),
    )
    return ProblemResponse(body, headers)


def pointer(path: Iterable[Any]) -> str:
    """Return the RFC 6901 JSON pointer to a place in a document; lone surrogates become `?`."""
    parts = (str(part).encode(errors="replace").decode() for part in path)
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in parts)


async def _answer_http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        error.headers = {"Allow": ", ".join(_methods_of(request))}
    by_status = (error.status_code, BY_STATUS.get(error.status_code, ErrorCode.BAD_REQUEST))
    status, code = CODES.get(type(error), by_status)
    param = PARAMS.get(type(error))
    return problem(status, code, str(error.detail), param=param, headers=error.headers)


def _methods_of(request: Request) -> list[str]:
    """Return all methods of a path: Starlette names only those of the first route that has it."""

    def served(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in HTTPMethod if served(method)]


async def _answer_storage(request: Request, error: Exception) -> ProblemResponse:
    found = CODES.get(type(error))
    if found is None:
        return await _answer_fault(request, error)
    if found[0] >= 500:
        log.error("store_away", path=request.url.path, exc_info=error)
    param = getattr(error, "param", PARAMS.get(type(error)))
    wait_s = RETRY_AFTER_S.get(type(error))
    headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
    return problem(*found, _message(type(error)), param=param, headers=headers)


async def _answer_validation(_: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    raw = error.errors()
    for entry in raw:
        if entry["type"] == "json_invalid":
            detail = f"The body is not valid JSON: {entry['ctx']['error']}."
            return problem(400, ErrorCode.BAD_REQUEST, detail)
    errors = [_field_error(entry) for entry in raw]
    detail = "; ".join(f"{entry.pointer or '/'}: {entry.detail}" for entry in errors[:5])
    param = errors[0].pointer if errors else None
    return problem(422, ErrorCode.VALIDATION_ERROR, detail, param=param, errors=errors)


async def _answer_nobody(_: Request, error: Exception) -> ProblemResponse:
    """A client that dies in the middle of its upload is no fault of ours, and reads no answer."""
    return problem(400, ErrorCode.BAD_REQUEST, "The client went away before its body had ended.")


async def _answer_fault(request: Request, error: Exception) -> ProblemResponse:
    log.error("request_failed", path=request.url.path, exc_info=error)
    detail = "The service failed; the fault is logged. Try again later."
    return problem(500, ErrorCode.INTERNAL_ERROR, detail)


def _field_error(entry: Mapping[str, Any]) -> FieldError:
    location, *path = entry["loc"]
    if path[:1] == ["method"] and path[1:2] and path[1] in METHOD_TYPES:
        del path[1]  # the union's tag, which is no part of the document
    return FieldError(pointer=pointer(path), location=str(location), detail=entry["msg"])


def _message(kind: type[Exception]) -> str:
    return re.sub(r"\s+", " ", kind.__doc__ or "").strip()
