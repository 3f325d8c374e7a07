"""`disp worker`: one process that works on jobs or files, in the way that the settings ask for."""

import os
import sys
import tempfile
from collections.abc import Sequence
from enum import IntEnum
from typing import NoReturn

from schemas.tasks import QUEUE

CHILDREN_LAST = "100"


class OnceStatus(IntEnum):
    """How `--once` ends: also when there was nothing to do, or somebody else's verdict holds."""

    DONE = 0
    TRY_AGAIN = 1


def run_once() -> OnceStatus:
    """Claim one job, see one attempt at it through, and leave: one pod, one job."""
    from storage.connect import open_artifact_store, open_job_store
    from storage.telemetry.logs import configure_logs
    from storage.telemetry.traces import configure_traces, flush_traces
    from workers.context import Outcome
    from workers.runner import stop_on_signals
    from workers.settings import worker_settings
    from workers.supervisor import Workplace
    from workers.tasks.defense import run_attempt

    configure_logs()
    configure_traces("disp-worker")
    settings = worker_settings()
    stop = stop_on_signals()
    store = open_job_store(settings.database_url)
    try:
        artifacts = open_artifact_store(settings.artifacts_url)
        outcome = run_attempt(None, Workplace(store, artifacts, settings), stop)
    finally:
        store.close()
        flush_traces()
    return OnceStatus.TRY_AGAIN if outcome is Outcome.ENGINE_LOST else OnceStatus.DONE


def run_for_ever(queues: Sequence[str]) -> None:
    """Become a Celery node where a broker is configured; look into the job store otherwise."""
    from workers.settings import worker_settings

    if worker_settings().broker_url is None:
        from workers.runner import main

        main(with_jobs=QUEUE in queues)
    else:
        _become_celery(queues)


def _become_celery(queues: Sequence[str]) -> NoReturn:
    """SIGTERM then means the soft shutdown: the job at hand is saved and handed back."""
    environment = {"REMAP_SIGTERM": "SIGQUIT"} | os.environ
    environment.setdefault(
        "PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="disp-worker-metrics-")
    )
    os.execve(sys.executable, celery_command(queues), environment)  # noqa: S606  our own list


def node_name(queues: Sequence[str], devices: str) -> str:
    """Return what tells the nodes of one machine apart: their queues and the GPUs they see."""
    served = "-".join(queue.removeprefix("disp.") for queue in queues)
    return f"{served}{devices.replace(',', '-')}@%h"


def celery_command(queues: Sequence[str]) -> list[str]:
    """Return the command of a node: one job at a time, a fresh process for each GPU job."""
    node = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-c", "1"]
    node += ["-n", node_name(queues, os.environ.get("CUDA_VISIBLE_DEVICES", ""))]
    node += ["-Q", ",".join(queues), "--without-mingle", "--without-gossip"]
    return node if QUEUE in queues else [*node, "--max-tasks-per-child", CHILDREN_LAST]
