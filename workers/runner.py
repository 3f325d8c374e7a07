"""The embedded runner: one process that claims one job after the other; needs no broker.

A thread beside them reads what is uploaded, so that no upload waits for a job's end.

It holds a lock on its work folder, so there is one per folder, and its owner name is kept there:
a runner that was killed claims its own job again at once instead of waiting for the lease's end.
"""

import fcntl
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from uuid import uuid4

import structlog

from storage.connect import open_artifact_store, open_job_store
from storage.interfaces import Claim
from storage.telemetry.logs import configure_logs
from storage.telemetry.metrics import serve_worker_metrics
from storage.telemetry.traces import configure_traces
from workers.context import Outcome
from workers.helping import help_out
from workers.reading import keep_reading
from workers.settings import worker_settings
from workers.supervisor import Workplace, supervise

log = structlog.get_logger()

PAUSE_AFTER_FAULT_S = 2.0
FRUITLESS = frozenset({Outcome.ENGINE_LOST, Outcome.RELEASED})


class RunnerAlreadyRunning(Exception):
    """Another runner works in this folder: stop it, or give this one a work folder of its own."""


@contextmanager
def sole_owner(work_dir: Path) -> Iterator[str]:
    """Hold the folder's lock; yields the owner name that is this folder's for ever."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / "runner.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunnerAlreadyRunning(str(work_dir)) from error
        file.seek(0)
        owner = file.read().strip()
        if not owner:
            owner = f"runner-{uuid4().hex}"
            file.write(owner)
            file.flush()
        yield owner


class Runner:
    """Claims and supervises until `stop` is set."""

    def __init__(self, workplace: Workplace, owner: str, stop: threading.Event) -> None:
        self._workplace = workplace
        self._owner = owner
        self._stop = stop
        self._reconciled_at = float("-inf")

    def run(self) -> None:
        """Work on jobs, and read files beside them, until stopped."""
        reader = threading.Thread(
            target=keep_reading, args=(self._workplace, self._stop), name="reader", daemon=True
        )
        reader.start()
        self._work()
        reader.join()

    def _work(self) -> None:
        """Go on until stopped; a fault of a store is waited out."""
        while not self._stop.is_set():
            try:
                worked = self.step()
            except Exception:  # a store that is away: the job stays ours, look again in a while
                log.exception("attempt_broken_off")
                self._stop.wait(PAUSE_AFTER_FAULT_S)
                continue
            if not worked:
                self._stop.wait(self._workplace.settings.poll_s)

    def step(self) -> bool:
        """Work on one job, if there is one; tells whether an attempt got anywhere."""
        self._reconcile_if_due()
        claim = self._claim()
        if claim is None:
            return help_out(self._workplace, self._stop)
        return supervise(claim, self._workplace, self._stop) not in FRUITLESS

    def _claim(self) -> Claim | None:
        settings = self._workplace.settings
        return self._workplace.store.claim(
            self._owner, lease_s=settings.lease_s, max_losses=settings.max_losses
        )

    def _reconcile_if_due(self) -> None:
        settings = self._workplace.settings
        if time.monotonic() - self._reconciled_at >= settings.reconcile_s:
            self._workplace.store.reconcile(max_losses=settings.max_losses)
            self._reconciled_at = time.monotonic()


def stop_on_signals() -> threading.Event:
    """SIGTERM and SIGINT set the event; the work at hand is then saved and handed back."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop


def main(*, with_jobs: bool = True) -> None:
    """Work on jobs and read files, or read files only, until SIGTERM or SIGINT."""
    configure_logs()
    configure_traces("disp-worker")
    settings = worker_settings()
    if settings.metrics_port is not None:
        serve_worker_metrics(settings.metrics_port)
    stop = stop_on_signals()
    with sole_owner(settings.work_dir) as owner:
        store = open_job_store(settings.database_url)
        artifacts = open_artifact_store(settings.artifacts_url)
        log.info("runner_started", owner=owner)
        workplace = Workplace(store, artifacts, settings)
        if with_jobs:
            Runner(workplace, owner, stop).run()
        else:
            keep_reading(workplace, stop)
        store.close()


if __name__ == "__main__":
    main()
