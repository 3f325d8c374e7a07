"""No body longer than the route allows, whatever its Content-Length says or does not say."""

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import PayloadTooLarge
from schemas.uploads import MAX_PART

UPLOAD_PATHS = frozenset({"/v1/files"})
PART_PATH = re.compile(r"/v1/uploads/[^/]+/parts(/[^/]+)?")
MAX_PART_BODY = MAX_PART + 64 * 1024  # a form adds its boundaries
DIGITS = 18


class BodyLimit:
    """Counts the bytes that really arrive; the reader of the body meets `PayloadTooLarge`.

    A request is judged when its body is first asked for. An upload asks after it has looked at the
    key, so a stranger is told 401, not 413; the other routes read their small bodies first.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int, max_request_bytes: int) -> None:
        """Wrap `app` with one limit for uploads and one for everything else."""
        self._app = app
        self._max_upload_bytes = max_upload_bytes
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._app(scope, _counted(scope, receive, self._limit(scope["path"])), send)

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
        arrived += len(message.get("body", b""))
        if arrived > limit:
            raise PayloadTooLarge()
        return message

    return counted
