"""One uploaded file, read as a job would read it: from claim to what was found in it.

The reading is a child process like a job's engine. When it or we die, or the file turns out to be
deleted, the lease decides what becomes of the file; nothing is published but the findings.
"""

import os
import shutil
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog

from schemas.errors import ErrorCode
from schemas.files import FileRefusal
from storage.errors import LeaseLost, NotFound
from storage.interfaces import Directive, FileClaim, Findings
from workers.context import Halted, JobContext, Outcome
from workers.engine_process import EngineProcess
from workers.inputs import InputCorrupted, materialise
from workers.listening import lines_of
from workers.patience import patiently
from workers.supervisor import Workplace
from workers.translate import ValidatedMessage, parse

log = structlog.get_logger()

FOLDER = ".reading"
"""In the work folder, where tenants have folders of their names; one file is in it at a time."""
PAUSE_AFTER_FAULT_S = 2.0


@dataclass(frozen=True)
class _Reading:
    """The heartbeats of a reader."""

    workplace: Workplace

    def heartbeat(self, claim: FileClaim, *, lease_s: float) -> Directive:
        return self.workplace.store.heartbeat_file(claim, lease_s=lease_s)


def keep_reading(workplace: Workplace, stop: threading.Event) -> None:
    """Read whatever waits until stopped; a fault of a store is waited out."""
    while not stop.is_set():
        try:
            worked = read_one(workplace, stop)
        except Exception:  # a store that is away: the lease brings the file back
            log.exception("reading_broken_off")
            stop.wait(PAUSE_AFTER_FAULT_S)
            continue
        if not worked:
            stop.wait(workplace.settings.poll_s)


def read_one(workplace: Workplace, stop: threading.Event, file_id: str | None = None) -> bool:
    """Read the oldest file that waits, or `file_id` if it does; False if there is none.

    Call it in a thread that lives as long as the process: the child dies with it.
    """
    settings = workplace.settings
    owner = f"reader:{socket.gethostname()}:{os.getpid()}:{uuid4().hex}"
    claim = workplace.store.claim_file(owner, lease_s=settings.lease_s, file_id=file_id)
    if claim is None:
        return False
    context = JobContext(
        _Reading(workplace),
        claim,
        lease_s=settings.lease_s,
        heartbeat_s=settings.heartbeat_s,
        stop=stop,
    )
    with structlog.contextvars.bound_contextvars(file_id=claim.file.id, tenant=claim.tenant):
        log.info("reading_started")
        with context:
            outcome = _settle(context, workplace)
        log.info("reading_ended", outcome=outcome.value)
    return True


def _settle(context: JobContext[FileClaim], workplace: Workplace) -> Outcome:
    """Write down what was found; hand the file back when we have to stop."""
    store, claim = workplace.store, context.claim
    try:
        try:
            findings = _findings(context, workplace)
            patiently(context, lambda: store.settle_file(claim, findings))
            return Outcome.SUCCEEDED
        except Halted as halted:
            if halted.outcome is Outcome.RELEASED:
                store.release_file(claim)
            return halted.outcome
        except SystemExit:  # Celery's way of ending a task that has used up its grace
            store.release_file(claim)
            raise
    except LeaseLost:
        return Outcome.LEASE_LOST


def _findings(context: JobContext[FileClaim], workplace: Workplace) -> Findings:
    file, root = context.claim.file, workplace.settings.work_dir.resolve() / FOLDER
    shutil.rmtree(root, ignore_errors=True)  # of a reader that was killed
    try:
        path = patiently(context, lambda: materialise(workplace.artifacts, file, root, context))
        return _read(path, context, workplace)
    except (InputCorrupted, NotFound):
        refusal = FileRefusal(code=ErrorCode.ENGINE_ERROR, message=str(InputCorrupted.__doc__))
        return Findings(error=refusal)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _read(path: Path, context: JobContext[FileClaim], workplace: Workplace) -> Findings:
    command = [*workplace.reader_command, str(path), str(path.parent / "members")]
    child = EngineProcess(command, log_path=path.parent / "reader.log")
    try:
        found = _follow(child, context, workplace)
    except SystemExit:
        child.ask_to_stop(workplace.settings.stop_grace_s)
        raise
    finally:
        status = child.reap()
    if found is not None:
        return found
    context.check()
    log.error("reader_died", exit_status=status, log_tail=child.log_tail())
    raise Halted(Outcome.ENGINE_LOST)


def _follow(
    child: EngineProcess, context: JobContext[FileClaim], workplace: Workplace
) -> Findings | None:
    """What the child has found; None when it ends, or has to end, without a finding."""
    for line in lines_of(child, context, workplace.settings):
        if line and isinstance(message := parse(line), ValidatedMessage):
            return message.findings()
    return None
