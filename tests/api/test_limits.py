"""Bodies that come slowly; how long they may be is told in test_files.py and test_uploads.py."""

import asyncio

import pytest

from api.errors import BodyTooSlow
from api.limits import LEAST_BYTES_PER_S, BodyLimit

SCOPE = {"type": "http", "path": "/v1/defense/jobs", "headers": []}
PATIENCE_S = 0.1


def read(*messages):
    """Read all messages through the limit; each is (seconds to wait, body, whether more comes)."""
    waiting = iter(messages)

    async def receive():
        seconds, body, more = next(waiting)
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": body, "more_body": more}

    async def app(scope, receive, send):
        for _ in messages:
            await receive()

    limit = BodyLimit(app, max_upload_bytes=10**6, max_request_bytes=10**6, patience_s=PATIENCE_S)
    asyncio.run(limit(SCOPE, receive, None))


def test_a_body_that_stops_coming_is_given_up():
    with pytest.raises(BodyTooSlow) as refused:
        read((0, b"{", True), (5, b"}", False))
    assert refused.value.headers == {"Connection": "close"}


def test_a_body_that_drips_is_given_up_though_no_single_wait_is_long():
    with pytest.raises(BodyTooSlow):
        read(*[(0.03, b"x", True)] * 10)


def test_a_body_that_comes_steadily_may_take_longer_than_the_patience():
    enough = b"x" * (LEAST_BYTES_PER_S // 10)
    read(*[(0.03, enough, True)] * 10, (0, b"", False))


def test_a_client_may_stay_silent_for_ever_once_its_body_has_ended():
    read((0, b"{}", False), (3 * PATIENCE_S, b"", False))
