import base64
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import GatewaySettings
from storage.interfaces import ModelRecord
from tests.api.world import Api
from tests.parts.sqlite import sqlite_database

MAX_UPLOAD_BYTES = 100_000
MAX_REQUEST_BYTES = 20_000
SEED = base64.b64encode(bytes(range(32))).decode()
"""A key to sign reports with."""


@pytest.fixture
def settings(tmp_path):
    return GatewaySettings(
        database_url=sqlite_database(tmp_path / "jobs.sqlite"),
        artifacts_url=f"file://{tmp_path}/artifacts",
        max_upload_bytes=MAX_UPLOAD_BYTES,
        max_request_bytes=MAX_REQUEST_BYTES,
    )


@pytest.fixture
def api(settings):
    with _serve(settings) as api:
        yield api


@pytest.fixture
def signing_api(settings):
    """A gateway that signs reports."""
    with _serve(settings.model_copy(update={"signing_key": SEED})) as api:
        yield api


@pytest.fixture
def s3_api(settings, s3, monkeypatch):
    """The same gateway over a real S3 service."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with _serve(settings.model_copy(update={"artifacts_url": s3.url})) as api:
        yield api


@pytest.fixture(params=["local", "s3"])
def each_api(request):
    return request.getfixturevalue("api" if request.param == "local" else "s3_api")


@contextmanager
def _serve(settings):
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        gateway = client.app.state.gateway
        gateway.jobs.register_model(ModelRecord("tiny", "llada_v", "r1", "/secret/path"))
        client.headers["Authorization"] = f"Bearer {gateway.jobs.issue_key('acme')}"
        yield Api(client, gateway)
