"""Who is asking: bearer keys, scopes, and ids that cannot be ids."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, Path
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import Forbidden, Unauthenticated
from api.gateway import AnyGateway
from schemas.requests import MODEL_ID
from storage.errors import NotFound
from storage.interfaces import ApiKey

bearer = HTTPBearer(auto_error=False, description="An API key: `disp_<id>_<secret>`.")
ID = re.compile(r"[a-z]+_[0-9a-f]{32}")


def authenticated(
    gateway: AnyGateway,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> ApiKey:
    """Return whose key this is, or refuse one that is none, or whose tenant asks too often."""
    key = gateway.jobs.authenticate(credentials.credentials) if credentials else None
    if key is None:
        raise Unauthenticated({"WWW-Authenticate": "Bearer"})
    gateway.rates.check(key.tenant)
    return key


def with_scope(scope: str) -> Callable[[ApiKey], Awaitable[str]]:
    """Return a dependency: the tenant of a key that has `scope`, which every event then tells."""

    async def tenant(key: Annotated[ApiKey, Depends(authenticated)]) -> str:
        if scope not in key.scopes:
            raise Forbidden()
        structlog.contextvars.bind_contextvars(tenant=key.tenant)  # in the request's own task
        return key.tenant

    return tenant


def id_named(name: str, pattern: re.Pattern[str] = ID) -> Callable[[str], str]:
    """Return a dependency: the path's `name`, if it can be an id at all."""

    def well_formed(value: Annotated[str, Path(alias=name)]) -> str:
        if pattern.fullmatch(value) is None:
            raise NotFound(name)
        return value

    return well_formed


Reader = Annotated[str, Depends(with_scope("read"))]
"""The tenant of a key that may read."""
Submitter = Annotated[str, Depends(with_scope("submit"))]
"""The tenant of a key that may create, cancel and delete."""
Administrator = Annotated[str, Depends(with_scope("admin"))]
"""The tenant of a key that may issue and end the tenant's keys."""
FileIdInPath = Annotated[str, Depends(id_named("file_id"))]
JobIdInPath = Annotated[str, Depends(id_named("job_id"))]
KeyIdInPath = Annotated[str, Depends(id_named("key_id", re.compile("[0-9a-f]{32}")))]
ModelIdInPath = Annotated[str, Depends(id_named("model_id", re.compile(MODEL_ID)))]
