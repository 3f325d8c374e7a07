"""Hints to the workers: a job's id under a task's name, after the commit, at best effort."""

from typing import Protocol

import structlog
from celery import Celery

from schemas.tasks import KEY_PREFIX, PURIFY, QUEUE

log = structlog.get_logger()


class JobQueue(Protocol):
    """Tells workers that a job is there; the reconciler repeats what gets lost."""

    def hint(self, job_id: str) -> None:
        """Say that the job may be claimed; never raises."""
        ...


class PolledQueue:
    """For runners that look into the job store themselves."""

    def hint(self, job_id: str) -> None:
        """Leave it to the runner."""


class CeleryQueue:
    """Sends the purify task by name, so that the gateway imports no worker."""

    def __init__(self, broker_url: str) -> None:
        """Prepare to publish; connects at the first hint."""
        self._app = Celery("disp", broker=broker_url)
        self._app.conf.update(
            task_ignore_result=True,
            broker_transport_options={
                "global_keyprefix": KEY_PREFIX,
                "socket_connect_timeout": 5,
                "socket_timeout": 5,
            },
        )

    def hint(self, job_id: str) -> None:
        """Publish once; a broker that is down costs a delay, not the job."""
        try:
            self._app.send_task(PURIFY, args=[job_id], queue=QUEUE, retry=False)
        except Exception as error:
            log.warning("hint_not_sent", job_id=job_id, error=type(error).__name__)


def open_queue(broker_url: str | None) -> JobQueue:
    """Return the queue for a broker, or the one that needs none."""
    return PolledQueue() if broker_url is None else CeleryQueue(broker_url)
