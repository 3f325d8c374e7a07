"""`/v1/defense/jobs/{job_id}/events`."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.access import JobIdInPath, Reader
from api.answers import KEYED, refusals
from api.events.feed import OpenFeed
from api.gateway import AnyGateway
from schemas.jobs import Event
from schemas.wire import Page

router = APIRouter(
    prefix="/v1/defense/jobs/{job_id}/events", tags=["defense jobs"], responses=refusals(*KEYED)
)


@router.get("", responses=refusals(404))
def list_events(
    gateway: AnyGateway,
    tenant: Reader,
    job_id: JobIdInPath,
    after: Annotated[str | None, Query(pattern=r"^evt_[0-9a-f]{32}$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[Event]:
    """List events, oldest first; `after` is the id of the last one seen."""
    return gateway.jobs.list_events(tenant, job_id, after=after, limit=limit)


@router.get("/stream", response_class=EventSourceResponse, responses=refusals(404))
async def stream_events(feed: OpenFeed) -> AsyncIterator[ServerSentEvent]:
    """Stream events until the job has ended; `Last-Event-ID` goes on behind that `seq`.

    Events are messages whose id is their `seq`. Between them come messages of the type `job`,
    without an id: the job as it is whenever it has changed, the last one being its end.
    """
    async for message in feed.messages():
        yield message
