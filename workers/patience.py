"""An attempt outlives a store that is away: it waits for as long as its lease lets it."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from storage.errors import StoreAway
from workers.context import JobContext

log = structlog.get_logger()

RETRY_S = 1.0
Answer = TypeVar("Answer")


def patiently(context: JobContext[Any], work: Callable[[], Answer]) -> Answer:
    """Do `work`, again from its beginning while a store is away; raises `Halted` in time."""
    while True:
        try:
            return work()
        except StoreAway as away:
            context.check()
            log.warning("store_away", reason=repr(away.__cause__ or away))
            time.sleep(RETRY_S)
