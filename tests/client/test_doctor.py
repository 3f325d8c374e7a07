import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from client import doctor
from client.doctor import Deployment, Verdict, examine, healthy
from client.prepare import prepare_database
from storage import artifacts as object_stores


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    url = f"sqlite:///{tmp_path}/disp.db"
    prepare_database(url).close()
    return Deployment(
        database_url=url,
        artifacts_url=f"file://{tmp_path}/artifacts",
        broker_url=None,
        work_dir=tmp_path / "work" / "not-yet-there",
        url=None,
        api_key=None,
    )


def found(deployment: Deployment) -> dict[str, doctor.Finding]:
    return {finding.check: finding for finding in examine(deployment)}


def test_a_healthy_deployment_is_called_healthy_and_what_is_absent_is_named(
    deployment: Deployment,
) -> None:
    findings = found(deployment)
    assert healthy(list(findings.values()))
    for check in ("versions", "database", "clock", "models", "artifacts"):
        assert findings[check].verdict is Verdict.OK, findings[check]
    assert findings["broker"].verdict is Verdict.SKIPPED
    assert findings["gateway"].verdict is Verdict.SKIPPED


def test_a_database_that_was_never_migrated_is_told_from_one_that_is_away(
    deployment: Deployment, tmp_path: Path
) -> None:
    empty = found(replace(deployment, database_url=f"sqlite:///{tmp_path}/empty.db"))
    assert empty["database"].verdict is Verdict.FAILED and "prepare" in empty["database"].remedy
    assert empty["models"].verdict is Verdict.SKIPPED
    away = found(replace(deployment, database_url="postgresql+psycopg://u:pw@127.0.0.1:1/d"))
    assert "unreachable" in away["database"].found and "pw" not in away["database"].found


def test_a_store_that_lets_two_creators_win_is_found_out(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = object_stores.ObjectArtifactStore

    def overwrites(self, key, data):  # type: ignore[no-untyped-def]
        return self.put_stream(key, [data])

    monkeypatch.setattr(store, "create", overwrites)
    finding = found(deployment)["artifacts"]
    assert finding.verdict is Verdict.WARNING and "8 of 8" in finding.found
    assert "If-None-Match" in finding.remedy


def test_a_store_that_forgets_what_it_accepted_is_a_failure(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_stores.ObjectArtifactStore, "get", lambda self, key: b"another")
    assert found(deployment)["artifacts"].verdict is Verdict.FAILED


def test_a_store_that_cannot_be_written_is_a_failure_with_a_remedy(
    deployment: Deployment, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    finding = found(replace(deployment, artifacts_url=f"file://{tmp_path}/file/x"))["artifacts"]
    assert finding.verdict is Verdict.FAILED and finding.remedy


def test_a_broker_that_is_away_is_a_warning_since_jobs_survive_it(deployment: Deployment) -> None:
    finding = found(replace(deployment, broker_url="redis://127.0.0.1:1/0"))["broker"]
    assert finding.verdict is Verdict.WARNING
    assert healthy([finding])


def test_clocks_that_disagree_are_a_warning(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.doctor.time.time", lambda: 1_000_000.0)
    finding = found(deployment)["clock"]
    assert finding.verdict is Verdict.WARNING and "NTP" in finding.remedy


def test_a_model_that_is_not_on_this_machine_is_named(deployment: Deployment) -> None:
    from storage.connect import open_job_store
    from storage.interfaces import ModelRecord

    store = open_job_store(deployment.database_url or "")
    store.register_model(ModelRecord("llada-v-8b", "llada_v", "r1", "/models/nowhere"))
    store.close()
    finding = found(deployment)["models"]
    assert finding.verdict is Verdict.WARNING and "llada-v-8b" in finding.found


def test_a_full_disk_is_a_warning(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 1 << 60)
    assert found(deployment)["disk"].verdict is Verdict.WARNING


def test_a_gateway_that_is_not_there_is_a_failure(deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    there = replace(deployment, url=f"http://127.0.0.1:{port}", api_key="disp_x")
    finding = found(there)["gateway"]
    assert finding.verdict is Verdict.FAILED and "DISP_URL" in finding.remedy


def test_nothing_configured_is_said_in_so_many_words() -> None:
    findings = found(Deployment.of({}))
    assert "DISP_DATABASE_URL" in findings["database"].remedy
    assert "DISP_ARTIFACTS_URL" in findings["artifacts"].remedy
    assert not healthy(list(findings.values()))


def test_a_finding_is_json(deployment: Deployment) -> None:
    lines = [finding.as_json() for finding in examine(deployment)]
    assert {"check", "verdict", "found", "remedy"} == set(json.loads(json.dumps(lines))[0])
