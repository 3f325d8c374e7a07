"""`metadata[key]=value` in a query: the labels that a listed job must have."""

import re
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.requests import MetadataKey, MetadataValue

LABEL = re.compile(r"metadata\[(?P<key>.*)\]", re.DOTALL)
NO_NUL = r"^[^\u0000]*$"
METADATA_QUERY: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "style": "deepObject",
            "explode": True,
            "description": "Only jobs with all of these labels: `metadata[team]=red`.",
            "schema": {
                "type": "object",
                "maxProperties": 16,
                "propertyNames": {"minLength": 1, "maxLength": 64, "pattern": NO_NUL},
                "additionalProperties": {"type": "string", "maxLength": 512, "pattern": NO_NUL},
            },
        }
    ]
}


class Labels(BaseModel):
    """What a label may be, as in the request that created the job."""

    model_config = ConfigDict(extra="forbid")

    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]


def _labels(request: Request) -> dict[str, str]:
    """Read the labels out of the query; refuse what is neither a label nor told apart from one."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if not name.startswith("metadata"):
            continue
        match = LABEL.fullmatch(name)
        if match is None or match["key"] in found:
            raise RequestValidationError([_fault(name, "write a label once, as metadata[key]")])
        found[match["key"]] = value
    try:
        return Labels(metadata=found).metadata
    except ValidationError as error:
        faults = [_fault("metadata", fault["msg"]) for fault in error.errors()]
        raise RequestValidationError(faults) from None


def _fault(name: str, message: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ("query", name), "msg": message}


LabelsInQuery = Annotated[dict[str, str], Depends(_labels)]
