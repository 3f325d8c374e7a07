"""Reading a job's event stream, across broken connections and gateways that restart."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2

from schemas.jobs import Event, Job

PATIENCE = 3
PAUSE_S = 0.5
TIMEOUT = httpx2.Timeout(30.0, read=45.0)
"""A gateway says something every 15 seconds at least; three times that is silence."""


def follow(
    http: httpx2.Client,
    path: str,
    seen: int,
    refuse: Callable[[httpx2.Response], None],
    poll: Callable[[int], Iterator[Event | Job]],
) -> Iterator[Event | Job]:
    """Yield what the stream at `path` says behind the event numbered `seen`, until the job's end.

    A stream that broke off is taken up behind its last event. After `PATIENCE` connections in a row
    that brought nothing, `poll` is asked for the rest. `refuse` raises for an answer that is no.
    """
    fruitless = 0
    while fruitless < PATIENCE:
        heard = False
        with suppress(httpx2.TransportError):
            for item in _connection(http, path, seen, refuse):
                heard = True
                seen = item.seq if isinstance(item, Event) else seen
                yield item
                if isinstance(item, Job) and item.status.terminal:
                    return
        fruitless = 0 if heard else fruitless + 1
        time.sleep(PAUSE_S)
    yield from poll(seen)


def _connection(
    http: httpx2.Client, path: str, seen: int, refuse: Callable[[httpx2.Response], None]
) -> Iterator[Event | Job]:
    headers = {"Last-Event-ID": str(seen), "Accept": "text/event-stream"}
    with http.stream("GET", path, headers=headers, timeout=TIMEOUT) as response:
        if response.status_code >= 500 or response.status_code == 429:
            return
        if response.status_code >= 400:
            response.read()
            refuse(response)
        for message in httpx2.EventSource(response):
            if message.event == "job":
                yield Job.model_validate_json(message.data)
            elif message.event == "message" and message.data:
                yield Event.model_validate_json(message.data)
