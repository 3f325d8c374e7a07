"""The Idempotency-Key header of every call that creates something."""

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from schemas.errors import ErrorCode
from storage.interfaces import Idempotency

KeyHeader = Annotated[str | None, Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]


class Fingerprint:
    """The key of one request, waiting for the body that it came with."""

    def __init__(self, request: Request, idempotency_key: KeyHeader = None) -> None:
        """Remember key and route: a key that made a job cannot replay as a file."""
        self._key = idempotency_key
        self._route = f"{request.method} {request.url.path}"

    def of(self, body: BaseModel | bytes = b"") -> Idempotency | None:
        """Return what the store is to remember; None for a request without a key.

        Of a body that is too large to hold, pass what tells it from others, its sha256 for one.
        """
        if self._key is None:
            return None
        if isinstance(body, BaseModel):
            body = body.model_dump_json(exclude_unset=True).encode()
        digest = hashlib.sha256(self._route.encode() + b"\n" + body)
        return Idempotency(self._key, digest.hexdigest())


IdempotencyKey = Annotated[Fingerprint, Depends()]
KEY_REFUSALS = (ErrorCode.IDEMPOTENCY_KEY_REUSED, ErrorCode.IDEMPOTENCY_IN_FLIGHT)
"""What a route that takes a key may refuse with."""
