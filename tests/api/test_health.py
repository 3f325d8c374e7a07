import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.health import PROBE_EVERY_S, ArtifactProbe
from storage.connect import open_artifact_store


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def counted(tmp_path, monkeypatch):
    store, asked = open_artifact_store(f"file://{tmp_path}/a"), []
    create = type(store).create

    def counting(self, key, data):
        asked.append(key)
        return create(self, key, data)

    monkeypatch.setattr(type(store), "create", counting)
    return store, asked


def test_the_artifact_store_is_asked_at_most_once_in_ten_seconds(counted):
    (store, asked), clock = counted, Clock()
    probe = ArtifactProbe(store, clock)
    for _ in range(5):
        probe.check()
    assert len(asked) == 1
    clock.now += PROBE_EVERY_S
    probe.check()
    assert len(asked) == 2
    assert not any(store.exists(key) for key in asked)


def test_a_bad_answer_is_remembered_as_long_as_a_good_one(counted, monkeypatch):
    (store, _), clock = counted, Clock()
    monkeypatch.setattr(type(store), "get", lambda *_: b"other")
    probe = ArtifactProbe(store, clock)
    for _ in range(2):
        with pytest.raises(OSError, match="other"):
            probe.check()
    monkeypatch.undo()
    clock.now += PROBE_EVERY_S
    probe.check()


def test_a_broker_that_is_away_degrades_and_does_not_end_readiness(settings):
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(away)) as client:
        ready = client.get("/readyz")
    assert ready.status_code == 200
    assert (ready.json()["status"], ready.json()["checks"]["broker"]) == ("degraded", "degraded")


def test_a_request_has_an_id_and_a_harmless_one_is_kept(api):
    given = api.client.get("/livez", headers={"X-Request-ID": "trace-1"})
    assert given.headers["x-request-id"] == "trace-1"
    evil = api.client.get("/livez", headers={"X-Request-ID": "a b{}" * 50})
    assert len(evil.headers["x-request-id"]) == 32
