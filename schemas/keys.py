"""API keys on the wire; the full text of one is shown once, in the answer that creates it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from schemas.wire import Request, Resource

WEEK_S = 7 * 24 * 3600


class KeyScope(StrEnum):
    """What a key may do: look, change, issue and end keys, or read the metrics."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"
    METRICS = "metrics"


TenantScope = Literal[KeyScope.READ, KeyScope.SUBMIT, KeyScope.ADMIN]
"""What a tenant may give away; metrics are of all tenants, so the operator alone gives them."""


class ApiKeyCreate(Request):
    """The body of `POST /v1/api_keys`."""

    scopes: Annotated[list[TenantScope], Field(min_length=1, max_length=3)]


class ApiKeyRotate(Request):
    """The body of `POST /v1/api_keys/{key_id}/rotate`."""

    grace_s: Annotated[int, Field(ge=0, le=WEEK_S)] = 24 * 3600


class ApiKeyFacts(Resource):
    """A key without its secret; times are Unix seconds."""

    id: str
    object: Literal["api_key"] = "api_key"
    scopes: list[KeyScope]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None


class NewApiKey(ApiKeyFacts):
    """A key at its creation; `key` is its full text, which cannot be had again."""

    key: str


class ApiKeyDeleted(Resource):
    """The answer to a revocation."""

    id: str
    object: Literal["api_key"] = "api_key"
    deleted: Literal[True] = True
