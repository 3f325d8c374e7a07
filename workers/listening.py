"""Listening to a child until it ends, or has to."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from workers.context import Halted, JobContext, Outcome
from workers.engine_process import EngineProcess
from workers.settings import WorkerSettings

TICK_S = 0.2


def lines_of(
    child: EngineProcess,
    context: JobContext[Any],
    settings: WorkerSettings,
    on_silence: Callable[[], None] = lambda: None,
) -> Iterator[bytes | None]:
    """Yield what the child says, and None or an empty line where it says nothing for a while.

    It is asked to stop when the context says so, and killed when it is silent for too long. Raises
    `Halted` when the lease is lost.
    """
    heard_at = time.monotonic()
    while not child.finished:
        line = child.read(TICK_S)
        if line:
            heard_at = time.monotonic()
        if context.halt is Outcome.LEASE_LOST:
            raise Halted(Outcome.LEASE_LOST)
        if context.should_abort():
            child.ask_to_stop(settings.stop_grace_s)
        elif time.monotonic() - heard_at > settings.silence_s:
            on_silence()
            child.kill()
        yield line
