"""A model the service knows; clients name it by id and never by path."""

from typing import Any, Literal

from pydantic import Field

from schemas.wire import Resource


class Model(Resource):
    """A registered checkpoint, its revision and its card's defaults."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "disp"
    family: str
    revision: str
    defaults: dict[str, Any] = Field(default_factory=dict)
