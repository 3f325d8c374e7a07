"""One attempt at one job, from claim to verdict.

The supervisor owns database and store; the engine, a child process, sees only files. Whatever
kills either of them, the job's lease runs out (or the same owner claims again) and the next
attempt finds the engine's finished stages in the work folder.
"""

import json
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from schemas.errors import ErrorCode
from schemas.jobs import JobError, JobStatus
from storage.errors import LeaseLost
from storage.interfaces import (
    ArtifactStore,
    Claim,
    EventDraft,
    JobInputs,
    ShardClaim,
    WorkerStore,
)
from storage.telemetry.traces import attempt_span
from workers.context import Halted, JobContext, Outcome
from workers.engine_process import EngineProcess
from workers.inputs import InputCorrupted, materialise
from workers.listening import TICK_S, lines_of
from workers.patience import patiently
from workers.publication import BadOutput, Publication, adopt, publish, result_files
from workers.samples import sample_entries
from workers.settings import WorkerSettings
from workers.shards import Hints, ShardDesk, forget_shards
from workers.translate import Journal

log = structlog.get_logger()

ENGINE_COMMAND = (sys.executable, "-m", "disp_engine")
READER_COMMAND = (sys.executable, "-m", "disp_engine.reading")
EXIT_DONE, EXIT_BROKEN, EXIT_INPUT_AT_FAULT, EXIT_STOPPED = 0, 1, 2, 75


@dataclass(frozen=True)
class Workplace:
    """Everything an attempt, or the reading of a file, needs that is not the job or the file."""

    store: WorkerStore
    artifacts: ArtifactStore
    settings: WorkerSettings
    engine_command: Sequence[str] = ENGINE_COMMAND
    hints: Hints | None = None
    reader_command: Sequence[str] = READER_COMMAND


@dataclass(frozen=True)
class AttemptFolder:
    """Where one attempt works; `cache` outlives it and is shared by the tenant's jobs."""

    root: Path
    cache: Path
    inputs: Path

    @classmethod
    def of(cls, work_dir: Path, claim: Claim) -> "AttemptFolder":
        """The folders of a claim's attempt."""
        tenant = work_dir.resolve() / claim.tenant
        root = tenant / "jobs" / claim.job_id / f"attempt-{claim.attempt}"
        return cls(root=root, cache=tenant / "cache", inputs=tenant / "inputs")

    @property
    def out(self) -> Path:
        """Where the engine puts its artifacts; gone after the attempt."""
        return self.root / "out"

    @property
    def log(self) -> Path:
        """What the engine wrote to stderr; kept."""
        return self.root / "engine.log"

    def prepare(self) -> None:
        """Make the folders; a job's earlier attempts are dead and leave only their logs."""
        for folder in (self.out, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
        for earlier in self.root.parent.glob("attempt-*/out"):
            if earlier != self.out:
                shutil.rmtree(earlier, ignore_errors=True)


def supervise(claim: Claim, workplace: Workplace, stop: threading.Event) -> Outcome:
    """Run one attempt; call it in the main thread. `stop` set: save, hand the job back, return."""
    settings = workplace.settings
    context = JobContext(
        workplace.store,
        claim,
        lease_s=settings.lease_s,
        heartbeat_s=settings.heartbeat_s,
        stop=stop,
    )
    with structlog.contextvars.bound_contextvars(
        job_id=claim.job_id, attempt=claim.attempt, tenant=claim.tenant
    ):
        log.info("attempt_started")
        with context, attempt_span(claim.traceparent, claim.job_id, claim.attempt) as span:
            outcome = _settle(context, workplace)
            span.set_attribute("disp.outcome", outcome.value)
        log.info("attempt_ended", outcome=outcome.value)
    return outcome


def _settle(context: JobContext[Claim], workplace: Workplace) -> Outcome:
    """Give the job the verdict that the attempt came to."""
    store, claim = workplace.store, context.claim
    try:
        try:
            publication = _attempt(context, workplace)
            _succeed(context, workplace, publication)
            forget_shards(workplace.artifacts, claim)
            return Outcome.SUCCEEDED
        except _Failed as failure:
            store.fail(claim, failure.error)
            return Outcome.FAILED
        except _Broken as broken:
            ended = store.fault(claim, broken.error, max_faults=workplace.settings.max_faults)
            return Outcome.FAILED if ended else Outcome.ENGINE_LOST
        except Halted as halted:
            return _halt(store, claim, halted.outcome)
        except SystemExit:  # Celery's way of ending a task that has used up its grace
            _halt(store, claim, Outcome.RELEASED)
            raise
    except LeaseLost:
        return Outcome.LEASE_LOST


def _succeed(context: JobContext[Claim], workplace: Workplace, publication: Publication) -> None:
    store, claim, manifest = workplace.store, context.claim, publication.manifest
    key, result, files = publication.key, publication.result, result_files(manifest)

    def work() -> None:
        store.index_samples(claim, sample_entries(workplace.artifacts, manifest))
        store.succeed(claim, key, result, files)

    patiently(context, work)


def _halt(store: WorkerStore, claim: Claim, outcome: Outcome) -> Outcome:
    if outcome is Outcome.CANCELLED:
        store.mark_cancelled(claim)
    elif outcome in (Outcome.PAUSED, Outcome.RELEASED):
        store.release(claim)
    return outcome


class _EngineError(Exception):
    """The engine came to no result."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class _Failed(_EngineError):
    """The job cannot succeed, however often it is tried."""


class _Broken(_EngineError):
    """The next attempt may have more luck."""


def _attempt(context: JobContext[Claim], workplace: Workplace) -> Publication:
    context.check()
    published = patiently(context, lambda: adopt(workplace.artifacts, context.claim))
    if published is not None:
        return published
    folder = AttemptFolder.of(workplace.settings.work_dir, context.claim)
    folder.prepare()
    try:
        inputs = patiently(context, lambda: workplace.store.job_inputs(context.claim))
        _require_revision(inputs)
        spec_path = patiently(context, lambda: _write_spec(inputs, context, workplace, folder))
        with _shard_desk(context, workplace, folder) as desk:
            patiently(context, desk.fetch_finished)
            _run_engine(context, workplace, folder, spec_path, desk)
        stages = inputs.request.stages
        return patiently(context, lambda: publish(workplace.artifacts, folder.out, context, stages))
    except (BadOutput, InputCorrupted) as error:
        reason = f"{type(error).__doc__} [{error}]"
        raise _Failed(JobError(code=ErrorCode.ENGINE_ERROR, message=reason)) from error
    finally:
        shutil.rmtree(folder.out, ignore_errors=True)


def _write_spec(
    inputs: JobInputs, context: JobContext[Claim], workplace: Workplace, folder: AttemptFolder
) -> Path:
    files = {
        name: str(materialise(workplace.artifacts, blob, folder.inputs, context)) if blob else None
        for name, blob in (
            ("training_file", inputs.training),
            ("checkpoint_file", inputs.checkpoint),
            ("triggered_file", inputs.triggered),
            ("clean_file", inputs.clean),
        )
    }
    spec = engine_spec(inputs) | files
    spec |= {"work_dir": str(folder.cache), "out_dir": str(folder.out)}
    spec |= {"threads": workplace.settings.engine_threads, "role": "leads"}
    path = folder.root / "spec.json"
    path.write_text(json.dumps(spec, indent=2))
    return path


def _require_revision(inputs: JobInputs) -> None:
    """The model that the job was created for may have been replaced while it waited."""
    wanted, found = inputs.request.model_revision, inputs.model.revision
    if wanted not in (None, found):
        reason = f"the model's revision is {found} by now, not {wanted}"
        error = JobError(code=ErrorCode.INVALID_MODEL, message=reason, param="model_revision")
        raise _Failed(error)


def engine_spec(inputs: JobInputs) -> dict[str, Any]:
    """What the engine is asked to do, the files and folders of this machine left open."""
    request = inputs.request
    success = request.evaluation.success if request.evaluation else None
    return {
        "model_dir": inputs.model.path,
        "model_id": inputs.model.id,
        "success": success.model_dump(mode="json") if success else None,
        "validation": request.validation,
        "artifacts": list(request.artifacts),
        "stages": list(request.stages),
        "model_options": dict(request.model_options),
        "method": request.method.model_dump(mode="json", exclude_none=True),
        "defaults": dict(inputs.model.defaults),
        "seed": request.seed,
    }


def _shard_desk(
    context: JobContext[Claim], workplace: Workplace, folder: AttemptFolder
) -> ShardDesk:
    claim = context.claim
    return ShardDesk(
        workplace.store,
        workplace.artifacts,
        context,
        folder.cache / "stages",
        right=ShardClaim(claim.job_id, claim.tenant, claim.owner),
        claim=claim,
        lease_s=workplace.settings.lease_s,
        hints=workplace.hints,
    )


def _run_engine(
    context: JobContext[Claim],
    workplace: Workplace,
    folder: AttemptFolder,
    spec_path: Path,
    desk: ShardDesk,
) -> None:
    """Return when the engine has put everything into the output folder; raise otherwise."""
    journal = Journal(workplace.store, context.claim)
    journal.set_status(JobStatus.VALIDATING_FILES)
    engine = EngineProcess([*workplace.engine_command, str(spec_path)], log_path=folder.log)
    try:
        _follow(engine, journal, desk, context, workplace.settings)
    except SystemExit:
        engine.ask_to_stop(workplace.settings.stop_grace_s)
        while not engine.finished:
            engine.read(TICK_S)
        raise
    finally:
        status = engine.reap()
        journal.close()
    _judge(status, journal, context, engine)


def _follow(
    engine: EngineProcess,
    journal: Journal,
    desk: ShardDesk,
    context: JobContext[Claim],
    settings: WorkerSettings,
) -> None:
    def say_so() -> None:
        journal.say(EventDraft(f"engine silent for {settings.silence_s:.0f} s", level="warn"))

    for line in lines_of(engine, context, settings, say_so):
        if line and not desk.take(line):
            journal.take(line)
        desk.serve(engine)
        journal.flush_if_due()


def _judge(
    status: int, journal: Journal, context: JobContext[Claim], engine: EngineProcess
) -> None:
    """Turn the engine's end into ours."""
    if status == EXIT_DONE and journal.done:
        patiently(context, journal.flush)
        return
    if context.halt is not None:
        journal.flush()
        context.check()
    if status == EXIT_STOPPED:
        journal.flush()
        raise Halted(Outcome.RELEASED)
    if status == EXIT_INPUT_AT_FAULT and journal.error is not None:
        journal.fail_stage()
        journal.flush()
        raise _Failed(journal.error.job_error())
    log.error("engine_died", exit_status=status, log_tail=engine.log_tail())
    if status == EXIT_BROKEN and journal.error is not None:
        journal.flush()
        raise _Broken(journal.error.job_error())
    journal.say(_death(status))
    journal.flush()
    raise Halted(Outcome.ENGINE_LOST)


def _death(status: int) -> EventDraft:
    """What the job's owner reads of an engine that died; the job will be tried again."""
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return EventDraft(f"the engine {how}", level="error", data={"exit_status": status})
