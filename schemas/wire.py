"""The two temperaments of a wire model: what we send may grow, what we are sent may not."""

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item")


class Resource(BaseModel):
    """Something the service answers with; a newer service may add fields."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Request(BaseModel):
    """Something a client asks for; a field we do not know is a mistake of the client's."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Page(Resource, Generic[Item]):
    """One page of a listing; while `has_more`, pass `last_id` as `after` to get the next one."""

    object: Literal["list"] = "list"
    data: Sequence[Item]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None
