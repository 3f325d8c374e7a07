"""The task behind a defense job: claim it, if it may be claimed, and supervise one attempt."""

import os
import socket
import threading
from functools import lru_cache
from uuid import uuid4

from schemas.tasks import PURIFY
from storage.connect import open_artifact_store, open_job_store
from storage.telemetry.traces import flush_traces
from workers.app import app
from workers.context import Outcome
from workers.settings import worker_settings
from workers.supervisor import Workplace, supervise


@app.task(name=PURIFY, ignore_result=True, acks_late=False, max_retries=0)
def purify(job_id: str) -> None:
    """What Celery sees; retries are the lease's business."""
    try:
        run_attempt(job_id, workplace())
    finally:
        flush_traces()  # Celery ends its children without a farewell


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
    )
