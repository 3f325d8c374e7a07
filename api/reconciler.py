"""The threads that repair what deaths leave behind; several gateways may run them at once."""

import threading
from collections.abc import Callable
from dataclasses import asdict

import structlog

from api.gateway import Gateway
from api.uploads.service import sweep
from storage.interfaces import Reconciled
from storage.telemetry.metrics import HINTS_RESENT
from storage.webhooks.sender import Sender

log = structlog.get_logger()

WEBHOOKS_S = 2.0


class Reconciler:
    """Reconciles every `period_s` until stopped, and sees that webhooks are sent.

    With a broker a worker sends them, at a hint; without one this process does.
    """

    def __init__(self, gateway: Gateway, *, period_s: float, max_losses: int) -> None:
        """Prepare the thread; `start` runs it."""
        self._gateway = gateway
        self._sender = Sender(gateway.jobs, gateway.egress)
        self._period_s, self._max_losses = period_s, max_losses
        self._stopped = threading.Event()
        self._threads = [
            self._repeating("reconciler", self.reconcile, period_s),
            self._repeating("webhooks", self.send_webhooks, min(WEBHOOKS_S, period_s)),
        ]

    def start(self) -> None:
        """Reconcile now and then periodically."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the round in progress end, and no other begin."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def reconcile(self) -> Reconciled:
        """Do one round."""
        found = self._gateway.jobs.reconcile(max_losses=self._max_losses)
        self._hint(found)
        self._gateway.jobs.prune_deliveries()
        repaired = {name: ids for name, ids in asdict(found).items() if "hints" not in name}
        if any(repaired.values()):
            log.info("reconciled", **repaired)
        self._sweep_uploads()
        return found

    def _hint(self, found: Reconciled) -> None:
        for job_id in found.hints:
            self._gateway.queue.hint(job_id)
        for file_id in found.file_hints:
            self._gateway.queue.hint_file(file_id)
        HINTS_RESENT.inc(len(found.hints) + len(found.file_hints))

    def _sweep_uploads(self) -> None:
        """Delete what expired and cancelled uploads have left."""
        for upload in self._gateway.jobs.abandoned_uploads():
            sweep(self._gateway, upload)
            log.info("upload_swept", upload_id=upload.id, status=upload.status)

    def send_webhooks(self) -> None:
        """Have what is due sent."""
        if not self._gateway.jobs.deliveries_due():
            return
        if self._gateway.queue.hint_webhooks():
            self._stopped.wait(self._period_s)
        else:
            self._sender.send_due()

    def _repeating(
        self, name: str, work: Callable[[], object], period_s: float
    ) -> threading.Thread:
        def run() -> None:
            while not self._stopped.is_set():
                try:
                    work()
                except Exception as error:
                    log.error(f"{name}_failed", exc_info=error)
                self._stopped.wait(period_s)

        return threading.Thread(target=run, name=name, daemon=True)
