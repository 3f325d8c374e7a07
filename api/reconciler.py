"""The thread that repairs what deaths leave behind; several gateways may run it at once."""

import threading

import structlog

from api.gateway import Gateway
from api.uploads.service import sweep

log = structlog.get_logger()


class Reconciler:
    """Reconciles every `period_s` until stopped."""

    def __init__(self, gateway: Gateway, *, period_s: float, max_losses: int) -> None:
        """Prepare the thread; `start` runs it."""
        self._gateway = gateway
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
        found = self._gateway.jobs.reconcile(max_losses=self._max_losses)
        for job_id in found.hints:
            self._gateway.queue.hint(job_id)
        if found.requeued or found.paused or found.cancelled or found.failed:
            log.info(
                "reconciled",
                requeued=found.requeued,
                paused=found.paused,
                cancelled=found.cancelled,
                failed=found.failed,
            )
        self._sweep_uploads()

    def _sweep_uploads(self) -> None:
        """Delete what expired and cancelled uploads have left."""
        for upload in self._gateway.jobs.abandoned_uploads():
            sweep(self._gateway, upload)
            log.info("upload_swept", upload_id=upload.id, status=upload.status)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.reconcile()
            except Exception as error:
                log.error("reconcile_failed", exc_info=error)
            self._stopped.wait(self._period_s)
