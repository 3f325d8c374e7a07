"""A job through the service and by the bare engine: `python -m benchmarks.service --json FILE`.

Both do the same job from nothing and take turns: `disp purify` from its start to its end, the
service from the request to the answer that the job has succeeded, with leases, progress, events,
metrics and published artifacts. Promised for jobs of a minute or more: the service needs at most
1.03 times as long. One processor is left to whoever is not the engine, as where that has a GPU;
`--threads` may say otherwise. The upload has been read when the job is asked for.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.host import running_host
from client.config import MODEL
from client.sdk import Client
from disp_engine import registry
from disp_engine.attacks.poison import build_demo
from schemas.jobs import JobStatus
from schemas.requests import DefenseJobCreate, DispHyperparameters, Method

FACTOR, LEAST_S = 1.03, 60.0
POLL_S = 0.2
TUNING = {"epochs": 2, "retrain_epochs": 1, "batch_size": 8}


@dataclass(frozen=True)
class Result:
    """Seconds of each run."""

    samples: int
    bare: Sequence[float]
    service: Sequence[float]

    @property
    def factor(self) -> float:
        """How much longer the service takes; of each, the quickest run counts."""
        return min(self.service) / min(self.bare)

    @property
    def holds(self) -> bool:
        """Whether the promise was kept by a job that is long enough to ask."""
        return min(self.bare) >= LEAST_S and self.factor <= FACTOR


def run(folder: Path, *, samples: int, rounds: int, threads: int) -> Result:
    """Measure everything below `folder`."""
    data = build_demo(folder / "data", samples=samples, test=1, seed=0).training
    bare, service = [], []
    for number in range(rounds):
        bare.append(_bare(folder / f"bare-{number}", data, threads))
        service.append(_service(folder / f"service-{number}", data, threads))
    return Result(samples, bare, service)


def _bare(folder: Path, data: Path, threads: int) -> float:
    folder.mkdir()
    [card] = [card for card in registry.builtin_models() if card["id"] == MODEL]
    command = [sys.executable, "-m", "client.cli", "purify", "--model", str(card["path"])]
    command += ["--data", str(data), "--out", str(folder / "out"), "--threads", str(threads)]
    given = TUNING | dict(card["defaults"])
    command += [word for item in given.items() for word in ("--setting", "{}={}".format(*item))]
    began = time.monotonic()
    with (folder / "purify.log").open("wb") as log:
        subprocess.run([*command, "--json"], check=True, stdout=log, stderr=log)
    return time.monotonic() - began


def _service(folder: Path, data: Path, threads: int) -> float:
    with running_host(folder, runners=1, threads=threads) as client:
        request = DefenseJobCreate(
            model=MODEL,
            training_file=_uploaded(client, data),
            method=Method(hyperparameters=DispHyperparameters(**TUNING)),
        )
        began = time.monotonic()
        job = client.wait(client.create_job(request).id)
        seconds = time.monotonic() - began
        if job.status is not JobStatus.SUCCEEDED:
            raise RuntimeError(f"the job {job.status}: {job.error}")
        return seconds


def _uploaded(client: Client, data: Path) -> str:
    file_id = client.upload(data).id
    while client.file(file_id).status in ("uploaded", "processing"):
        time.sleep(POLL_S)
    return file_id


def main() -> None:
    """Print the result as JSON; status 1 if the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=700)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) - 1))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, asked = Path(name), {"samples": options.samples, "rounds": options.rounds}
        result = run(folder, **asked, threads=options.threads)
    shown = asdict(result) | {"factor": result.factor, "holds": result.holds}
    text = json.dumps(shown, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text)
    sys.exit(0 if result.holds else 1)


if __name__ == "__main__":
    main()
