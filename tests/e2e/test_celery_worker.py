"""A Celery node as it is deployed, with a real Redis and the real engine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.queue import open_queue
from client.config import MODEL
from client.prepare import prepare_database
from disp_engine.attacks.poison import build_demo
from schemas.files import FilePurpose
from schemas.jobs import JobStatus, StageName
from schemas.requests import DefenseJobCreate, DispHyperparameters, Method
from storage.connect import open_artifact_store
from storage.ids import new_id
from storage.interfaces import FileDraft, JobStore
from storage.keys import upload_key
from tests.e2e.production.processes import engines_below

TENANT = "acme"
PATIENCE_S = 300.0
ENDLESS = DispHyperparameters(epochs=1000, batch_size=8)


@pytest.fixture
def environment(tmp_path: Path, redis_url: str) -> dict[str, str]:
    return {
        "DISP_DATABASE_URL": f"sqlite:///{tmp_path}/disp.db",
        "DISP_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
        "DISP_BROKER_URL": redis_url,
        "DISP_WORK_DIR": str(tmp_path / "work"),
        "DISP_ENGINE_THREADS": "1",
        "DISP_SOFT_SHUTDOWN_S": "1",
    }


@pytest.fixture
def store(environment: dict[str, str]) -> Iterator[JobStore]:
    store = prepare_database(environment["DISP_DATABASE_URL"])
    yield store
    store.close()


def create_endless_job(store: JobStore, environment: dict[str, str], folder: Path) -> str:
    data = build_demo(folder / "data", samples=8, test=1, seed=0).training
    artifacts = open_artifact_store(environment["DISP_ARTIFACTS_URL"])
    file_id = new_id("file")
    blob = artifacts.put_file(upload_key(TENANT, file_id), data)
    draft = FileDraft(
        id=file_id,
        filename=data.name,
        purpose=FilePurpose.FINE_TUNE,
        key=blob.key,
        bytes=blob.bytes,
        sha256=blob.sha256,
    )
    store.add_file(TENANT, draft)
    method = Method(hyperparameters=ENDLESS)
    request = DefenseJobCreate(model=MODEL, training_file=file_id, method=method)
    return store.create_job(TENANT, request).job.id


@contextmanager
def working(environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "client.cli", "worker"],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield worker
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def test_a_worker_that_has_to_end_saves_its_job_and_hands_it_back_at_once(
    store: JobStore, environment: dict[str, str], tmp_path: Path
) -> None:
    job_id = create_endless_job(store, environment, tmp_path)
    with working(environment, tmp_path / "worker.log") as worker:
        open_queue(environment["DISP_BROKER_URL"]).hint(job_id)
        deadline = time.monotonic() + PATIENCE_S
        while store.get_job(TENANT, job_id).stage is not StageName.FINE_TUNE:
            assert worker.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        (engine,) = engines_below([worker.pid])
        worker.send_signal(signal.SIGTERM)
        worker.wait(PATIENCE_S)
    job = store.get_job(TENANT, job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)
    assert "handed back" in store.list_events(TENANT, job_id).data[-1].message
    assert not Path(f"/proc/{engine.pid}").exists()
