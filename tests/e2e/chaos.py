"""SIGKILL at random moments: `python -m tests.e2e.chaos --rounds 20 --json FILE`.

Each round starts a service in a folder of its own, so nothing is reused of the undisturbed run,
submits the same job, kills the runner, the engine or the gateway, and compares what comes out.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from client.demo import running_service
from client.sdk import Client
from disp_engine.attacks.poison import PoisonedSet
from schemas.jobs import JobStatus
from tests.e2e.workload import Fingerprint, build_data, fingerprint, upload

Victim = Literal["runner", "engine", "gateway"]
VICTIMS: tuple[Victim, ...] = ("runner", "engine", "gateway")
LATEST = 0.85
TRIES = 5


@dataclass(frozen=True)
class Undisturbed:
    """What every round has to reproduce, and how long the job takes when nobody dies."""

    fingerprint: Fingerprint
    seconds: float


@dataclass(frozen=True)
class Round:
    """The kills and what came of them; `hit` is false when the job had ended before the last."""

    victim: Victim
    kills: int
    after_s: float
    hit: bool
    stage: str | None
    attempts: int
    succeeded: bool
    identical: bool
    seconds: float


@dataclass(frozen=True)
class Chaos:
    """All rounds; the claim holds if each hit its victim, succeeded and was identical."""

    undisturbed: Undisturbed
    rounds: Sequence[Round]

    @property
    def holds(self) -> bool:
        """Whether no death lost, doubled or changed anything."""
        return all(r.hit and r.succeeded and r.identical for r in self.rounds)


def run_chaos(folder: Path, *, rounds: int, seed: int) -> Chaos:
    """Run the job once in peace and `rounds` times with a death."""
    data = build_data(folder / "data")
    undisturbed = run_undisturbed(folder / "undisturbed", data)
    rng = random.Random(seed)
    done = []
    for number in range(rounds):
        victim = VICTIMS[number % len(VICTIMS)]
        kills = 2 if number // len(VICTIMS) % len(VICTIMS) == number % len(VICTIMS) else 1
        done.append(_hit(folder / f"round-{number}", data, undisturbed, victim, kills, rng))
        print(f"round {number}: {done[-1]}", file=sys.stderr, flush=True)
    return Chaos(undisturbed, done)


def run_undisturbed(folder: Path, data: PoisonedSet) -> Undisturbed:
    """The job when nobody dies."""
    with running_service(folder) as client:
        job = client.create_job(upload(client, data))
        started = time.monotonic()
        ended = client.wait(job.id)
        seconds = time.monotonic() - started
        if ended.status is not JobStatus.SUCCEEDED:
            raise RuntimeError(f"the undisturbed job {ended.status}: {ended.error}")
        return Undisturbed(fingerprint(client, job.id, folder / "artifacts"), seconds)


def run_round(
    folder: Path,
    data: PoisonedSet,
    undisturbed: Undisturbed,
    victim: Victim,
    after_s: float,
    kills: int = 1,
) -> Round:
    """The job with one death `after_s` seconds after its creation, others as soon as can be."""
    with running_service(folder) as client:
        job = client.create_job(upload(client, data))
        started = time.monotonic()
        time.sleep(after_s)
        before = client.job(job.id)
        hit = _kill(victim, kills, folder, client, job.id)
        ended = client.wait(job.id)
        seconds = time.monotonic() - started
        succeeded = ended.status is JobStatus.SUCCEEDED
        identical = succeeded and (
            fingerprint(client, job.id, folder / "artifacts") == undisturbed.fingerprint
        )
        stage = before.stage.value if before.stage else None
        return Round(
            victim, kills, after_s, hit, stage, ended.attempt, succeeded, identical, seconds
        )


def _hit(
    folder: Path,
    data: PoisonedSet,
    undisturbed: Undisturbed,
    victim: Victim,
    kills: int,
    rng: random.Random,
) -> Round:
    """A round whose kills came in time; a job that was quicker than that is run once more."""
    for number in range(TRIES):
        after_s = rng.uniform(0, LATEST * undisturbed.seconds)
        result = run_round(folder / f"try-{number}", data, undisturbed, victim, after_s, kills)
        if result.hit or not result.identical:
            return result
    return result


def _kill(victim: Victim, kills: int, folder: Path, client: Client, job_id: str) -> bool:
    """SIGKILL, and again once it has been started again; false when the job ended before."""
    killed: set[int] = set()
    while not client.job(job_id).status.terminal:
        pid = _pid_of(victim, folder)
        if pid is not None and pid not in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        if len(killed) == kills:
            return True
        time.sleep(0.02)
    return False


def _pid_of(victim: Victim, folder: Path) -> int | None:
    """The process that `serve.json` knows, or its engine; a dead one may still stand there."""
    processes: dict[str, int | None] = json.loads((folder / "serve.json").read_text())
    if victim != "engine":
        return processes[f"{victim}_pid"]
    runner = processes["runner_pid"]
    return None if runner is None else engine_of(runner)


def engine_of(runner: int) -> int | None:
    """The runner's child that runs the engine, if one does at the moment."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == runner and b"-m\0disp_engine\0" in command:
            return int(stat.parent.name)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="disp-chaos-") as folder:
        chaos = run_chaos(Path(folder), rounds=given.rounds, seed=given.seed)
    content = {"holds": chaos.holds, **asdict(chaos)}
    if given.json is not None:
        given.json.write_text(json.dumps(content, indent=2))
    hits = sum(r.hit for r in chaos.rounds)
    same = sum(r.identical for r in chaos.rounds)
    print(f"{len(chaos.rounds)} rounds, {hits} hits, {same} identical: holds = {chaos.holds}")
    return 0 if chaos.holds else 1


if __name__ == "__main__":
    sys.exit(main())
