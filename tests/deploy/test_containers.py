"""The very commands of the containers as processes: an upload, a job, its webhook and the metrics.

What the gateway's image would run (prepare, gateway, sender of webhooks) runs without the engine's
packages, and the reader of uploads without all of them but Pillow. SQLite and a folder stand in for
PostgreSQL and S3; the broker is a real Redis.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import yaml
from standardwebhooks import Webhook

from tests.deploy.slim import write_sitecustomize
from tests.deploy.tools import ROOT
from tests.engine.test_dataset import make_zip, png, record
from tests.parts.redis import redis_server
from tests.storage.webhooks.receiver import receiving

PATIENCE_S = 120.0
PYTHON = {"disp": ["-m", "client.cli"], "uvicorn": ["-m", "uvicorn"]}
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if holds():
                return
        except (OSError, httpx2.HTTPError):
            pass
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)


@dataclass(frozen=True)
class Host:
    """A machine that runs containers' commands as processes of its own."""

    folder: Path
    environment: dict[str, str]
    images: Path

    def command(self, service: str, **changes: str) -> list[str]:
        program, *arguments = SERVICES[service]["command"]
        return [sys.executable, *PYTHON[program], *(changes.get(a, a) for a in arguments)]

    def environment_of(self, service: str) -> dict[str, str]:
        seen = [str(self.images / SERVICES[service]["image"]), str(ROOT)]
        port = {"DISP_METRICS_PORT": self.environment.get(f"PORT_{service}", "0")}
        work = {"DISP_WORK_DIR": str(self.folder / f"work-{service}")}
        return os.environ | self.environment | port | work | {"PYTHONPATH": os.pathsep.join(seen)}

    @contextmanager
    def running(self, service: str, **changes: str) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.folder / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(service, **changes),
                cwd=self.folder,
                env=self.environment_of(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def disp(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "client.cli", *arguments],
            cwd=self.folder,
            env=self.environment_of("prepare"),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    images = tmp_path / "images"
    assert {"torch", "transformers", "PIL"} <= write_sitecustomize(images / "disp-gateway")
    hidden = write_sitecustomize(images / "disp-reader", "ingest")
    assert {"torch", "transformers"} <= hidden and "PIL" not in hidden
    (tmp_path / "database_url").write_text(f"sqlite:///{tmp_path}/disp.db")
    with redis_server(tmp_path / "redis") as url:
        environment = {
            "DISP_DATABASE_URL_FILE": str(tmp_path / "database_url"),
            "DISP_BROKER_URL": url,
            "DISP_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
            "DISP_WEBHOOKS_ALLOW_LOCAL": "true",
            "DISP_RECONCILE_S": "1",
            "PORT_worker-gpu": str(free_port()),
            "PORT_worker-cpu": str(free_port()),
            "PORT_worker-io": str(free_port()),
        }
        yield Host(tmp_path, environment, images)


def scraped(host: Host, service: str) -> str:
    port = host.environment[f"PORT_{service}"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def create_job_that_fails_early(client: httpx2.Client, host: Host) -> str:
    """Its stored bytes are spoilt once they were read, so that no engine needs to start."""
    members = {"data.json": json.dumps([record()]).encode(), "images/a.png": png()}
    archive = make_zip(host.folder / "data.zip", members).read_bytes()
    files = {"file": ("data.zip", archive)}
    uploaded = client.post("/v1/files", files=files, data={"purpose": "fine-tune"}).json()
    path = f"/v1/files/{uploaded['id']}"
    eventually(lambda: client.get(path).json()["status"] == "processed")
    assert client.get(f"{path}/validation").json()["usable"] == 1
    (stored,) = (host.folder / "artifacts").rglob(uploaded["id"])
    stored.write_bytes(b"spoilt")
    body = {"model": "disp-tiny-llada-v", "training_file": uploaded["id"]}
    return str(client.post("/v1/defense/jobs", json=body).json()["id"])


def test_the_containers_commands_carry_upload_and_job_from_request_to_webhook(
    host: Host,
) -> None:
    prepared = host.disp("prepare")
    assert prepared.returncode == 0, prepared.stderr
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        processes = [
            stack.enter_context(host.running("gateway", **{"8000": port})),
            stack.enter_context(host.running("worker-gpu")),
            stack.enter_context(host.running("worker-cpu")),
            stack.enter_context(host.running("worker-io")),
        ]
        client = stack.enter_context(httpx2.Client(base_url=url, trust_env=False))
        client.headers["Authorization"] = f"Bearer {prepared.stdout.strip()}"
        eventually(lambda: client.get("/readyz").json()["status"] == "ok")
        hook = client.post("/v1/webhook_endpoints", json={"url": receiver.url}).json()
        job_id = create_job_that_fails_early(client, host)

        eventually(lambda: receiver.seen)
        (seen,) = receiver.seen
        message = Webhook(hook["secret"]).verify(seen.body, dict(seen.headers))
        assert (message["type"], message["data"]["id"]) == ("defense.job.failed", job_id)
        job = client.get(f"/v1/defense/jobs/{job_id}").json()
        assert (job["status"], job["error"]["code"]) == ("failed", "engine_error")

        finished = 'disp_jobs_finished_total{reason="engine_error",status="failed"} 1.0'
        eventually(lambda: finished in scraped(host, "worker-gpu"))
        sent = 'disp_webhook_deliveries_total{outcome="succeeded"} 1.0'
        eventually(lambda: sent in scraped(host, "worker-io"))

        asked = {"DISP_URL": url, "DISP_API_KEY": prepared.stdout.strip()}
        host.environment.update(asked)
        verdict = host.disp("doctor", "--json")
        assert verdict.returncode == 0, verdict.stdout
        checks = {finding["check"]: finding["verdict"] for finding in json.loads(verdict.stdout)}
        assert (checks["broker"], checks["gateway"], checks["artifacts"]) == ("ok", "ok", "ok")

        for process in processes:
            process.send_signal(signal.SIGTERM)
        gateway, *workers = processes
        assert gateway.wait(PATIENCE_S) in (0, -signal.SIGTERM)  # uvicorn's last word
        assert [worker.wait(PATIENCE_S) for worker in workers] == [0, 0, 0]


def test_a_pod_that_finds_no_queued_row_ends_at_once(host: Host) -> None:
    assert host.disp("prepare", "--no-key").returncode == 0
    assert host.disp("worker", "--once").returncode == 0
