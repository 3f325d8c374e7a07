"""No body longer than the route allows, or slower than a modem, whatever its headers say."""

import asyncio
import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTooSlow, PayloadTooLarge
from api.tally import count_received
from schemas.uploads import MAX_PART

UPLOAD_PATHS = frozenset({"/v1/files"})
PART_PATH = re.compile(r"/v1/uploads/[^/]+/parts(/[^/]+)?")
MAX_PART_BODY = MAX_PART + 64 * 1024  # a form adds its boundaries
DIGITS = 18
LEAST_BYTES_PER_S = 1024


class BodyLimit:
    """Counts the bytes that really arrive; the reader of the body meets `PayloadTooLarge`.

    Of a body that keeps us waiting for longer than `patience_s`, and a second more for each
    `LEAST_BYTES_PER_S` that have come, he meets `BodyTooSlow`.

    A request is judged when its body is first asked for. An upload asks after it has looked at the
    key, so a stranger is told 401, not 413; the other routes read their small bodies first.
    """

    def __init__(
        self, app: ASGIApp, max_upload_bytes: int, max_request_bytes: int, patience_s: float
    ) -> None:
        """Wrap `app` with one limit for uploads and one for everything else."""
        self._app = app
        self._max_upload_bytes = max_upload_bytes
        self._max_request_bytes = max_request_bytes
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        await self._app(scope, _counted(scope, _timed(receive, self._patience_s), limit), send)

    def _limit(self, path: str) -> int:
        if path in UPLOAD_PATHS:
            return self._max_upload_bytes
        return MAX_PART_BODY if PART_PATH.fullmatch(path) else self._max_request_bytes


def _counted(scope: Scope, receive: Receive, limit: int) -> Receive:
    announced = Headers(scope=scope).get("content-length", "")
    too_long = announced.isdecimal() and (len(announced) > DIGITS or int(announced) > limit)
    arrived = 0

    async def counted() -> Message:
        nonlocal arrived
        if too_long:
            raise PayloadTooLarge()
        message = await receive()
        size = len(message.get("body", b""))
        arrived += size
        count_received(scope["path"], size)
        if arrived > limit:
            raise PayloadTooLarge()
        return message

    return counted


def _timed(receive: Receive, patience_s: float) -> Receive:
    """Wait for the body only so long; for the client's farewell, as long as it takes."""
    patience, ended = patience_s, False

    async def timed() -> Message:
        nonlocal patience, ended
        if ended:
            return await receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError as error:
            raise BodyTooSlow({"Connection": "close"}) from error
        patience += len(message.get("body", b"")) / LEAST_BYTES_PER_S - time.monotonic() + began
        ended = not message.get("more_body", False)
        return message

    return timed
