"""The real gateway in this process, the real runner, and scripted engines; no sockets."""

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.rates import RateLimit
from api.settings import GatewaySettings
from client.sdk import Client
from schemas.requests import DefenseJobCreate
from storage.connect import open_artifact_store, open_job_store
from storage.interfaces import JobStore, ModelRecord
from tests.parts.sqlite import sqlite_database
from tests.workers.conftest import ENGINE
from workers.context import Outcome
from workers.settings import WorkerSettings
from workers.supervisor import Workplace, supervise

Before = Callable[[httpx2.Request], None]
After = Callable[[httpx2.Response], None]


@dataclass
class Wire(httpx2.BaseTransport):
    """The way to the gateway; a test may break it before or after a request has passed."""

    inner: httpx2.BaseTransport
    before: Before = lambda request: None
    after: After = lambda response: None
    seen: list[httpx2.Request] = field(default_factory=list)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        self.before(request)
        response = self.inner.handle_request(request)
        self.after(response)
        return response


@dataclass(frozen=True)
class Service:
    """A gateway with one model, a client of it, and a runner that works when it is told to."""

    store: JobStore
    workplace: Workplace
    wire: Wire
    api_key: str
    rates: RateLimit

    def client(self, *, patience_s: float = 5.0, api_key: str | None = None) -> Client:
        return Client(
            "http://testserver",
            api_key or self.api_key,
            patience_s=patience_s,
            transport=self.wire,
        )

    def work(self, script: str) -> Outcome:
        claim = self.store.claim("runner", lease_s=60.0)
        assert claim is not None
        command = (sys.executable, str(ENGINE), script)
        return supervise(claim, replace(self.workplace, engine_command=command), threading.Event())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    database, artifacts = sqlite_database(tmp_path / "disp.db"), f"file://{tmp_path}/artifacts"
    store = open_job_store(database)
    store.register_model(ModelRecord(id="tiny", family="llada_v", revision="r1", path="/models/t"))
    settings = WorkerSettings(
        database_url=database, artifacts_url=artifacts, work_dir=tmp_path / "work"
    )
    workplace = Workplace(store, open_artifact_store(artifacts), settings)
    app = create_app(GatewaySettings(database_url=database, artifacts_url=artifacts))
    with TestClient(app, raise_server_exceptions=False) as gateway:
        wire = Wire(gateway._transport)
        rates = app.state.gateway.rates
        yield Service(store, workplace, wire, store.issue_key("acme"), rates)
    store.close()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Bytes that the gateway takes for a zip; only the engine would read them."""
    import zipfile

    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.json", "[]")
    return path


@pytest.fixture
def request_for() -> Callable[[str], DefenseJobCreate]:
    return lambda file_id: DefenseJobCreate(model="tiny", training_file=file_id)
