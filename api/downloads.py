"""Stored bytes as an answer: a strong ETag from the sha256, conditions and one range."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api.errors import RangeNotSatisfiable
from storage.interfaces import ArtifactStore

RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")


@dataclass(frozen=True)
class Download:
    """One immutable object of the artifact store, as a client is to see it."""

    key: str
    bytes: int
    sha256: str
    media_type: str
    filename: str | None = None

    @property
    def etag(self) -> str:
        """Return the strong validator."""
        return f'"sha256-{self.sha256}"'


def send(
    store: ArtifactStore,
    item: Download,
    request: Request,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer 200, 206 or 304, or refuse a range that is not there.

    What is to be saved, not read in place, is fetched from the store itself where that gives
    URLs: the answer is 303, and the store looks at the range.
    """
    common = _common_headers(item) | dict(headers or {})
    if _matches(request.headers.get("if-none-match", ""), item.etag):
        return Response(status_code=304, headers=common)
    url = _url(store, item)
    if url is not None:
        return RedirectResponse(url, 303, headers={"Cache-Control": "private, no-store"})
    span = _span(request, item)
    if span is None:
        return _stream(store, item, range(item.bytes), 200, common)
    described = f"bytes {span.start}-{span.stop - 1}/{item.bytes}"
    return _stream(store, item, span, 206, common | {"Content-Range": described})


def _common_headers(item: Download) -> dict[str, str]:
    headers = {
        "ETag": item.etag,
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(item.sha256)).decode()}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if item.filename is not None:
        name = quote(item.filename, safe="")
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    return headers


def _url(store: ArtifactStore, item: Download) -> str | None:
    if item.filename is None:
        return None
    return store.download_url(item.key, filename=item.filename, media_type=item.media_type)


def _stream(
    store: ArtifactStore, item: Download, span: range, status: int, headers: Mapping[str, str]
) -> Response:
    chunks = store.open(item.key, start=span.start, length=len(span))
    length = {"Content-Length": str(len(span))}
    return StreamingResponse(
        chunks, status, headers={**headers, **length}, media_type=item.media_type
    )


def _matches(header: str, etag: str) -> bool:
    candidates = [candidate.strip().removeprefix("W/") for candidate in header.split(",")]
    return "*" in candidates or etag in candidates


def _span(request: Request, item: Download) -> range | None:
    """Return the one range asked for; None when the whole is to be sent (RFC 9110, 14.2)."""
    match = RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    stale = request.headers.get("if-range", item.etag) != item.etag
    if match is None or stale or not (match["first"] or match["last"]):
        return None
    if match["first"]:
        first, last = int(match["first"]), int(match["last"] or item.bytes)
        if match["last"] and last < first:
            return None
        span = range(first, min(last + 1, item.bytes))
    else:
        span = range(max(0, item.bytes - int(match["last"])), item.bytes)
    if not span:
        raise RangeNotSatisfiable({"Content-Range": f"bytes */{item.bytes}"})
    return span
