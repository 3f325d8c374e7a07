"""What the OpenAPI document says about errors."""

from typing import Any

from fastapi import FastAPI

from api.errors import PROBLEM
from schemas.errors import Problem

DESCRIPTIONS = {
    400: "The body cannot be parsed.",
    401: "No valid API key.",
    403: "The API key lacks the scope.",
    404: "No such object for this tenant.",
    409: "Not in the present state, or there are too many.",
    413: "The body is too long.",
    415: "Neither a zip nor a tar archive.",
    416: "No such bytes.",
    422: "The request is not as documented, or names something that does not exist.",
    503: "A part that the service depends on does not answer.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that may refuse with these statuses."""
    return {status: {"model": Problem, "description": DESCRIPTIONS[status]} for status in statuses}


def publish_problems(app: FastAPI) -> None:
    """Have the OpenAPI document name the media type that errors really have."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for path in document["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    content = response.get("content", {})
                    if status >= "4" and "application/json" in content:
                        content[PROBLEM] = content.pop("application/json")
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this way
