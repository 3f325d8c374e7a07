"""The task behind a defense job: claim it, if it may be claimed, and supervise one attempt."""

import os
import socket
import threading
from functools import lru_cache
from uuid import uuid4

import structlog

from schemas.tasks import HELP, PURIFY, QUEUE
from storage.connect import open_artifact_store, open_job_store
from storage.telemetry.traces import flush_traces
from workers.app import app
from workers.context import Outcome
from workers.helping import help_out
from workers.settings import worker_settings
from workers.supervisor import Workplace, supervise

log = structlog.get_logger()

MAX_HELPERS = 8
HINT_S = 3600.0


@app.task(name=PURIFY, ignore_result=True, acks_late=False, max_retries=0)
def purify(job_id: str) -> None:
    """What Celery sees; retries are the lease's business."""
    try:
        run_attempt(job_id, workplace())
    finally:
        flush_traces()  # Celery ends its children without a farewell


@app.task(name=HELP, ignore_result=True, acks_late=False, max_retries=0)
def help_with(job_id: str) -> None:
    """What Celery sees; a hint that comes too late finds nothing to do."""
    help_out(workplace(), threading.Event(), job_id)


class CeleryHints:
    """Hints to idle workers; one that gets lost costs help, not the job."""

    def hint_shards(self, job_id: str, count: int) -> None:
        """Ask for at most `count` helpers, and for no more than MAX_HELPERS."""
        try:
            for _ in range(min(count, MAX_HELPERS)):
                app.send_task(HELP, args=[job_id], queue=QUEUE, retry=False, expires=HINT_S)
        except Exception as error:
            log.warning("shards_not_hinted", job_id=job_id, error=type(error).__name__)


def run_attempt(
    job_id: str | None, workplace: Workplace, stop: threading.Event | None = None
) -> Outcome | None:
    """Do one attempt at a job, or at the oldest that waits; None when there is nothing to do."""
    settings = workplace.settings
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex}"
    claim = workplace.store.claim(
        owner, lease_s=settings.lease_s, job_id=job_id, max_losses=settings.max_losses
    )
    return None if claim is None else supervise(claim, workplace, stop or threading.Event())


@lru_cache(maxsize=1)
def workplace() -> Workplace:
    """Opened in the process that uses it, never before a fork."""
    settings = worker_settings()
    return Workplace(
        store=open_job_store(settings.database_url),
        artifacts=open_artifact_store(settings.artifacts_url),
        settings=settings,
        hints=CeleryHints(),
    )
