"""A real store on SQLite, a real artifact folder, and engines that are real programs."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from schemas.files import FilePurpose
from schemas.jobs import Event, Job
from schemas.requests import DefenseJobCreate
from storage.connect import open_artifact_store, open_job_store
from storage.ids import new_id
from storage.interfaces import Claim, FileDraft, JobStore, ModelRecord
from storage.keys import upload_key
from tests.parts.sqlite import sqlite_database
from workers.settings import WorkerSettings
from workers.supervisor import Workplace

TENANT = "acme"
DATA = b"PK dataset"
ENGINE = Path(__file__).with_name("scripted_engine.py")


@dataclass(frozen=True)
class Bench:
    """One queued job and all that is needed to work on it."""

    workplace: Workplace
    store: JobStore
    job_id: str

    def running(self, script: str) -> Workplace:
        return replace(self.workplace, engine_command=(sys.executable, str(ENGINE), script))

    def claim(self, owner: str = "runner") -> Claim:
        claim = self.store.claim(owner, lease_s=self.workplace.settings.lease_s)
        assert claim is not None
        return claim

    def job(self) -> Job:
        return self.store.get_job(TENANT, self.job_id)

    def events(self) -> list[Event]:
        return list(self.store.list_events(TENANT, self.job_id).data)


def add_job(workplace: Workplace, store: JobStore) -> str:
    file_id = new_id("file")
    blob = workplace.artifacts.put_stream(upload_key(TENANT, file_id), [DATA])
    draft = FileDraft(
        id=file_id,
        filename="data.zip",
        purpose=FilePurpose.FINE_TUNE,
        key=blob.key,
        bytes=blob.bytes,
        sha256=blob.sha256,
    )
    store.add_file(TENANT, draft)
    request = DefenseJobCreate(model="tiny", training_file=file_id, seed=7)
    return store.create_job(TENANT, request).job.id


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(
        database_url=sqlite_database(tmp_path / "disp.db"),
        artifacts_url=f"file://{tmp_path}/artifacts",
        work_dir=tmp_path / "work",
        lease_s=2.0,
        heartbeat_s=0.1,
        stop_grace_s=0.5,
        poll_s=0.05,
    )


@pytest.fixture
def bench(settings: WorkerSettings) -> Iterator[Bench]:
    store = open_job_store(settings.database_url)
    store.register_model(ModelRecord(id="tiny", family="llada_v", revision="r1", path="/models/t"))
    workplace = Workplace(store, open_artifact_store(settings.artifacts_url), settings)
    yield Bench(workplace, store, add_job(workplace, store))
    store.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait, at most ten seconds, until something holds."""
    import time

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.02)

    return wait
