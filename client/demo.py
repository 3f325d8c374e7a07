"""`disp demo`: the main job from end to end, over REST, on a service started for it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.children import dies_with
from client.config import MODEL, SERVE_FILE, Connection, read_connection
from client.errors import JobFailed, Unavailable
from client.progress import open_view
from client.sdk import Client
from client.watch import watch_job
from disp_engine.attacks.poison import PoisonedSet, build_demo
from schemas.files import FilePurpose
from schemas.jobs import Job, JobStatus
from schemas.reports import Report
from schemas.requests import (
    DefenseJobCreate,
    DispHyperparameters,
    Evaluation,
    Method,
    SuccessMatcher,
)

START_S = 60.0
STOP_S = 120.0
Masking = Literal["saliency", "random", "none"]
ABLATIONS: tuple[Masking, ...] = ("random", "none")


@dataclass(frozen=True)
class DemoResult:
    """The job's report, those of its ablations, and where the artifacts lie."""

    report: Report
    ablations: Mapping[str, Report]
    artifacts: Sequence[Path]

    def as_json(self) -> str:
        """The report, with the ablations beside it when there are any."""
        content = self.report.model_dump(mode="json")
        if self.ablations:
            content["ablations"] = {k: v.model_dump(mode="json") for k, v in self.ablations.items()}
        return json.dumps(content, indent=2)


def run_demo(out: Path, *, samples: int, test: int, seed: int, ablate: bool) -> DemoResult:
    """Poison, serve, upload, purify, fetch."""
    with running_service(out / "service") as client:
        cancel_unfinished(client)
        _say(f"poisoning {samples} samples into {out / 'data'}")
        data = build_demo(out / "data", samples=samples, test=test, seed=seed)
        request = upload_set(client, data, seed)
        job = _finish(client, request)
        paths = client.fetch(job.id, out / "artifacts")
        report = client.report(job.id)
        ablations: dict[str, Report] = {
            masking: _ablate(client, request, masking) for masking in (ABLATIONS if ablate else ())
        }
    return DemoResult(report, ablations, paths)


def cancel_unfinished(client: Client) -> None:
    """A demo that was broken off has left its job; nobody waits for that one any more."""
    after, more = None, True
    while more:
        page = client.jobs(limit=100, after=after)
        for job in page.data:
            if not job.status.terminal:
                _say(f"cancelling {job.id} of an earlier demo")
                client.cancel(job.id)
        after, more = page.last_id, page.has_more


def upload_set(client: Client, data: PoisonedSet, seed: int) -> DefenseJobCreate:
    """Upload the three archives; the request that purifies the first of them."""
    return DefenseJobCreate(
        model=MODEL,
        training_file=client.upload(data.training).id,
        evaluation=Evaluation(
            triggered_file=client.upload(data.triggered, FilePurpose.EVALUATION).id,
            clean_file=client.upload(data.clean, FilePurpose.EVALUATION).id,
            success=SuccessMatcher(phrases=list(data.phrases)),
        ),
        seed=seed,
        suffix="demo",
    )


@contextmanager
def running_service(data: Path) -> Iterator[Client]:
    """A `disp serve` on a free port, for as long as the block runs."""
    data.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "client.cli", "serve", "--data", str(data), "--port", "0"]
    with (data / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=dies_with(os.getpid()),
        )
    try:
        connection = await_service(data, process)
        with Client(connection.url, connection.api_key) as client:
            yield client
    finally:
        _say("stopping the service…")
        stop_service(process)


def await_service(data: Path, process: "subprocess.Popen[bytes]") -> Connection:
    """Wait until the service has written where it is; what it lacks, its log tells."""
    deadline = time.monotonic() + START_S
    while not _announced(data, process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"the service did not start: {_last_line(data / 'serve.log')}")
        time.sleep(0.05)
    return read_connection(data)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{said} (see {log})"


def _announced(data: Path, pid: int) -> bool:
    """Another service's file, or one that a killed service has left, does not count."""
    path = data / SERVE_FILE
    return path.exists() and json.loads(path.read_text())["pid"] == pid


def stop_service(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL if that does not help."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ablate(client: Client, request: DefenseJobCreate, masking: Masking) -> Report:
    """The same job with another masking; its stages up to there are reused."""
    _say(f"ablation: masking {masking}")
    method = Method(hyperparameters=DispHyperparameters(masking=masking))
    changes = {"method": method, "suffix": f"demo-{masking}"}
    return client.report(_finish(client, request.model_copy(update=changes)).id)


def _finish(client: Client, request: DefenseJobCreate) -> Job:
    job = client.create_job(request)
    _say(f"job {job.id}")
    with open_view() as view:
        job = watch_job(client, job.id, view)
    if job.status is not JobStatus.SUCCEEDED:
        raise JobFailed(job)
    return job


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
