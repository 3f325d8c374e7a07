"""Help with another attempt's job: an engine of our own works on its shards, and nothing else."""

import json
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog

from storage.errors import LeaseLost
from storage.interfaces import Directive, ShardClaim
from workers.context import Halted, JobContext
from workers.engine_process import EngineProcess
from workers.inputs import materialise
from workers.listening import lines_of
from workers.shards import ShardDesk
from workers.supervisor import Workplace, engine_spec

log = structlog.get_logger()


@dataclass(frozen=True)
class _Helping:
    """The heartbeats of a helper, which renew its leases on shards."""

    workplace: Workplace

    def heartbeat(self, claim: ShardClaim, *, lease_s: float) -> Directive:
        return self.workplace.store.renew_shards(claim, lease_s=lease_s)


def help_out(workplace: Workplace, stop: threading.Event, job_id: str | None = None) -> bool:
    """Work on the shards of a running job until none is left; False if none was wanted."""
    owner = f"helper:{socket.gethostname()}:{os.getpid()}:{uuid4().hex}"
    right = workplace.store.find_help_wanted(owner, job_id)
    if right is None:
        return False
    settings = workplace.settings
    context = JobContext(
        _Helping(workplace),
        right,
        lease_s=settings.lease_s,
        heartbeat_s=settings.heartbeat_s,
        stop=stop,
    )
    with structlog.contextvars.bound_contextvars(
        job_id=right.job_id, tenant=right.tenant, owner=owner
    ):
        log.info("helping_started")
        try:
            with context:
                _help(right, context, workplace)
        except (Halted, LeaseLost) as ended:
            log.info("helping_halted", reason=repr(ended))
        log.info("helping_ended")
    return True


def _help(right: ShardClaim, context: JobContext[ShardClaim], workplace: Workplace) -> None:
    tenant = workplace.settings.work_dir.resolve() / right.tenant
    root = tenant / "jobs" / right.job_id / "helping"
    root.mkdir(parents=True, exist_ok=True)
    stages = tenant / "cache" / "stages"
    desk = ShardDesk(
        workplace.store,
        workplace.artifacts,
        context,
        stages,
        right=right,
        claim=None,
        lease_s=workplace.settings.lease_s,
    )
    with desk:
        desk.fetch_finished()
        path = _write_spec(right, context, workplace, root)
        engine = EngineProcess([*workplace.engine_command, str(path)], log_path=root / "engine.log")
        try:
            for line in lines_of(engine, context, workplace.settings):
                if line:
                    desk.take(line)
                desk.serve(engine)
        except SystemExit:
            engine.ask_to_stop(workplace.settings.stop_grace_s)
            raise
        finally:
            status = engine.reap()
        if status:
            log.warning("helper_engine_ended", exit_status=status, log_tail=engine.log_tail())


def _write_spec(
    right: ShardClaim, context: JobContext[ShardClaim], workplace: Workplace, root: Path
) -> Path:
    tenant = workplace.settings.work_dir.resolve() / right.tenant
    inputs = workplace.store.shard_inputs(right)
    needed = {"training_file": inputs.training, "checkpoint_file": inputs.checkpoint}
    folder = tenant / "inputs"
    files = {
        name: str(materialise(workplace.artifacts, blob, folder, context)) if blob else None
        for name, blob in needed.items()
    }
    spec = engine_spec(inputs) | files
    spec |= {
        "work_dir": str(tenant / "cache"),
        "out_dir": str(root / "out"),
        "threads": workplace.settings.engine_threads,
        "role": "assists",
    }
    path = root / f"{uuid4().hex}.json"
    path.write_text(json.dumps(spec, indent=2))
    return path
