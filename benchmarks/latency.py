"""Answers of a gateway beside an engine on all cores: `python -m benchmarks.latency --json FILE`.

Five clients, each on a connection of its own, ask for a job's state at a steady pace: first while
nothing runs, then while that job is worked on. Promised: the 99th percentile under the engine is at
most three times the idle one, or 10 ms.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.host import POLL_S, Gateway, running_gateway
from client.config import MODEL
from client.sdk import Client
from disp_engine.attacks.poison import build_demo
from schemas.jobs import StageName
from schemas.requests import DefenseJobCreate, DispHyperparameters, Method

CLIENTS = 5
PACE_S = 0.1
ENDLESS = DispHyperparameters(epochs=1000, batch_size=8)
TIMES, LEAST_S = 3.0, 0.010


@dataclass(frozen=True)
class Latencies:
    """Of so many answers, in seconds."""

    answers: int
    median: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latencies":
        """Sort and look."""
        known = sorted(seconds)
        return cls(len(known), known[len(known) // 2], known[int(0.99 * len(known))], known[-1])


@dataclass(frozen=True)
class Result:
    """Both measurements."""

    idle: Latencies
    busy: Latencies

    @property
    def allowed(self) -> float:
        """The 99th percentile that was promised, in seconds."""
        return max(TIMES * self.idle.p99, LEAST_S)

    @property
    def holds(self) -> bool:
        """Whether it was kept."""
        return self.busy.p99 <= self.allowed


def run(folder: Path, *, seconds: float) -> Result:
    """Measure for `seconds` each."""
    data = build_demo(folder / "data", samples=64, test=1, seed=0)
    with running_gateway(folder / "host") as gateway, gateway.client() as client:
        request = DefenseJobCreate(
            model=MODEL,
            training_file=client.upload(data.training).id,
            method=Method(hyperparameters=ENDLESS),
        )
        job_id = client.create_job(request).id
        idle = _measure(gateway, job_id, seconds)
        with gateway.runner("runner", threads=os.cpu_count() or 1):
            _wait_for_training(client, job_id)
            busy = _measure(gateway, job_id, seconds)
            still = client.job(job_id)
    if still.stage is not StageName.FINE_TUNE:
        raise RuntimeError(f"the engine was not at work all the time: {still.status}")
    return Result(idle, busy)


def _wait_for_training(client: Client, job_id: str) -> None:
    while (job := client.job(job_id)).stage is not StageName.FINE_TUNE:
        if job.status.terminal:
            raise RuntimeError(f"the job {job.status}: {job.error}")
        time.sleep(POLL_S)


def _measure(gateway: Gateway, job_id: str, seconds: float) -> Latencies:
    measured: list[float] = []
    threads = [
        threading.Thread(target=_ask, args=[gateway, job_id, seconds, number, measured])
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Latencies.of(measured)


def _ask(gateway: Gateway, job_id: str, seconds: float, number: int, measured: list[float]) -> None:
    with gateway.client() as client:
        client.job(job_id)
        time.sleep(number * PACE_S / CLIENTS)
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            client.job(job_id)
            took = time.monotonic() - began
            measured.append(took)
            time.sleep(max(0.0, PACE_S - took))


def main() -> None:
    """Print the result as JSON; status 1 if the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), seconds=options.seconds)
    shown = asdict(result) | {"allowed": result.allowed, "holds": result.holds}
    text = json.dumps(shown, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text)
    sys.exit(0 if result.holds else 1)


if __name__ == "__main__":
    main()
