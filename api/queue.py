"""Hints to the workers: an id under a task's name, after the commit, at best effort."""

from typing import Protocol

import structlog
from celery import Celery

from schemas.tasks import (
    CPU_QUEUE,
    DELIVER,
    IO_QUEUE,
    KEY_PREFIX,
    PURIFY,
    QUEUE,
    QUEUE_TYPE,
    VALIDATE,
)

log = structlog.get_logger()

PING_S = 2.0
WEBHOOK_HINT_S = 60.0


class JobQueue(Protocol):
    """Tells workers that something is to be done; the reconciler repeats what gets lost."""

    def hint(self, job_id: str) -> None:
        """Say that the job may be claimed; never raises."""
        ...

    def hint_file(self, file_id: str) -> None:
        """Say that the file waits to be read; never raises."""
        ...

    def hint_webhooks(self) -> bool:
        """Say that webhooks are due; never raises. Tells whether a worker is to send them."""
        ...

    def ping(self) -> None:
        """Raise if a broker is configured and does not answer."""
        ...


class PolledQueue:
    """For runners that look into the job store themselves."""

    def hint(self, job_id: str) -> None:
        """Leave it to the runner."""

    def hint_file(self, file_id: str) -> None:
        """Leave it to the runner."""

    def hint_webhooks(self) -> bool:
        """Leave it to the gateway itself."""
        return False

    def ping(self) -> None:
        """There is nothing that could be away."""


class CeleryQueue:
    """Sends tasks by name, so that the gateway imports no worker."""

    def __init__(self, broker_url: str) -> None:
        """Prepare to publish; connects at the first hint."""
        self._app = Celery("disp", broker=broker_url)
        self._app.conf.update(
            task_ignore_result=True,
            task_default_queue_type=QUEUE_TYPE,
            task_create_missing_queue_type=QUEUE_TYPE,
            broker_transport_options={
                "global_keyprefix": KEY_PREFIX,
                "socket_connect_timeout": 5,
                "socket_timeout": 5,
            },
        )

    def hint(self, job_id: str) -> None:
        """Publish once; a broker that is down costs a delay, not the job."""
        self._send(PURIFY, [job_id], QUEUE)

    def hint_file(self, file_id: str) -> None:
        """Publish once, like a job's hint."""
        self._send(VALIDATE, [file_id], CPU_QUEUE)

    def hint_webhooks(self) -> bool:
        """Publish once; the message expires before the next one is sent."""
        self._send(DELIVER, [], IO_QUEUE, expires=WEBHOOK_HINT_S)
        return True

    def ping(self) -> None:
        """Connect to the broker, or raise what that raises."""
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=PING_S)

    def _send(self, task: str, args: list[str], queue: str, expires: float | None = None) -> None:
        try:
            self._app.send_task(task, args=args, queue=queue, retry=False, expires=expires)
        except Exception as error:
            log.warning("hint_not_sent", task=task, args=args, error=type(error).__name__)


def open_queue(broker_url: str | None) -> JobQueue:
    """Return the queue for a broker, or the one that needs none."""
    return PolledQueue() if broker_url is None else CeleryQueue(broker_url)
