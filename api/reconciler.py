"""The thread that repairs what deaths leave behind; several gateways may run it at once."""

import threading

import structlog

from api.queue import JobQueue
from storage.interfaces import JobStore

log = structlog.get_logger()


class Reconciler:
    """Reconciles every `period_s` until stopped."""

    def __init__(
        self, jobs: JobStore, queue: JobQueue, *, period_s: float, max_losses: int
    ) -> None:
        """Prepare the thread; `start` runs it."""
        self._jobs, self._queue = jobs, queue
        self._period_s, self._max_losses = period_s, max_losses
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Reconcile now and then periodically."""
        self._thread.start()

    def stop(self) -> None:
        """Let the round in progress end, and no other begin."""
        self._stopped.set()
        self._thread.join()

    def reconcile(self) -> None:
        """Do one round."""
        found = self._jobs.reconcile(max_losses=self._max_losses)
        for job_id in found.hints:
            self._queue.hint(job_id)
        if found.requeued or found.paused or found.cancelled or found.failed:
            log.info(
                "reconciled",
                requeued=found.requeued,
                paused=found.paused,
                cancelled=found.cancelled,
                failed=found.failed,
            )

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.reconcile()
            except Exception as error:
                log.error("reconcile_failed", exc_info=error)
            self._stopped.wait(self._period_s)
