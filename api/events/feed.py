"""A job's history as it is written, read from the store again and again.

A client that lost the connection, or whose gateway was stopped, goes on at any other gateway: all
that a stream knows is in its last event's number.
"""

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import Depends, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from api.access import JobIdInPath, Reader
from api.gateway import AnyGateway
from schemas.jobs import Event, Job
from schemas.wire import Page
from storage.errors import NotFound, StoreAway
from storage.interfaces import GatewayStore

POLL_S = 1.0
PAGE = 500
RECONNECT_MS = 1000


class Feed:
    """One job's events from `seen` on."""

    def __init__(self, store: GatewayStore, tenant: str, job_id: str, seen: int) -> None:
        """Prepare to read behind the event numbered `seen`."""
        self._store, self._tenant, self._job_id = store, tenant, job_id
        self._seen = seen
        self._shown: Job | None = None

    async def messages(self) -> AsyncIterator[ServerSentEvent]:
        """Yield until the job has ended or was deleted; a store that is away is waited for."""
        yield ServerSentEvent(retry=RECONNECT_MS)
        while True:
            try:
                async for message in self._news():
                    yield message
            except NotFound:
                return
            except StoreAway:
                pass
            if self._shown is not None and self._shown.status.terminal:
                return
            await anyio.sleep(POLL_S)

    async def _news(self) -> AsyncIterator[ServerSentEvent]:
        job = await run_in_threadpool(self._store.get_job, self._tenant, self._job_id)
        # Asked first: what has ended by now has written its last event.
        more = True
        while more:
            page = await run_in_threadpool(self._page)
            for event in page.data:
                self._seen = event.seq
                yield ServerSentEvent(data=event, id=str(event.seq))
            more = page.has_more
        if job != self._shown:
            self._shown = job
            yield ServerSentEvent(data=job, event="job")

    def _page(self) -> Page[Event]:
        return self._store.list_events(self._tenant, self._job_id, after=self._seen, limit=PAGE)


def _open(
    gateway: AnyGateway,
    tenant: Reader,
    job_id: JobIdInPath,
    last_event_id: Annotated[str, Header(pattern=r"^[0-9]{0,18}$")] = "",
) -> Feed:
    """Refuse before the stream begins what could not be refused afterwards."""
    gateway.jobs.get_job(tenant, job_id)
    return Feed(gateway.jobs, tenant, job_id, int(last_event_id or 0))


OpenFeed = Annotated[Feed, Depends(_open)]
