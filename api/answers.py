"""What the OpenAPI document says about errors."""

from typing import Any

from fastapi import FastAPI

from api.errors import PROBLEM, STATUSES
from schemas.errors import ErrorCode, Problem

DESCRIPTIONS = {
    400: "The body cannot be parsed.",
    401: "No valid API key.",
    403: "The API key lacks the scope.",
    404: "No such object for this tenant.",
    408: "The body comes too slowly.",
    409: "Not in the present state, or there are too many.",
    413: "The body is too long.",
    415: "Neither a zip nor a tar archive, or no safetensors where weights are announced.",
    416: "No such bytes.",
    422: "The request is not as documented, or names something that does not exist.",
    429: "Too many requests, or too many unfinished jobs.",
    503: "A part that the service depends on does not answer.",
}
SOLE_CODES = {
    400: ErrorCode.BAD_REQUEST,
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    408: ErrorCode.REQUEST_TIMEOUT,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_FORMAT,
    416: ErrorCode.RANGE_NOT_SATISFIABLE,
    422: ErrorCode.VALIDATION_ERROR,
    429: ErrorCode.RATE_LIMITED,
    503: ErrorCode.UNAVAILABLE,
}
"""What a status means where a route names no code of its own."""
SUPPOSED = {"$ref": "#/components/schemas/HTTPValidationError"}
OURS = {"$ref": "#/components/schemas/Problem"}
KEYED = (401, 403, 422, 429, 503)
"""What every route that wants an API key may refuse with."""


def refusals(*named: int | ErrorCode) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that may refuse with these statuses or codes.

    The document lists the codes of each status as `x-error-codes`. A route that names a code keeps
    those of its status that every route has.
    """
    codes: dict[int, list[ErrorCode]] = {}
    for name in named:
        code = name if isinstance(name, ErrorCode) else SOLE_CODES[name]
        shared = [SOLE_CODES[status] for status in KEYED if status == STATUSES[code]]
        known = codes.setdefault(STATUSES[code], shared)
        known += [code] if code not in known else []
    return {
        status: {
            "model": Problem,
            "description": DESCRIPTIONS[status],
            "x-error-codes": [code.value for code in found],
        }
        for status, found in codes.items()
    }


def publish_problems(app: FastAPI) -> None:
    """Have the OpenAPI document say of errors what is true.

    That is their media type; and that a route which names no 422 has nothing that could be
    refused with one, whatever FastAPI supposes of its parameters.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for path in document["paths"].values():
            for operation in path.values():
                _correct(operation["responses"])
        schemas = document["components"]["schemas"]
        for supposed in ("HTTPValidationError", "ValidationError"):
            schemas.pop(supposed, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this way


def _correct(responses: dict[str, Any]) -> None:
    for status, response in list(responses.items()):
        schemas = [content.get("schema", {}) for content in response.get("content", {}).values()]
        if SUPPOSED in schemas:
            del responses[status]
        elif status >= "4" and OURS in schemas:
            response["content"] = {PROBLEM: {"schema": OURS}}
