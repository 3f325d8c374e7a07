import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from api.signatures.service import Signer
from client import cli
from client.commands import report
from client.sdk import Client
from tests.api.test_signatures import PUBLIC, SEED
from tests.client.conftest import Service

Disp = Callable[..., int]


@pytest.fixture
def disp(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disp:
    def connect(url: str | None, api_key: str | None) -> Client:
        return service.client(api_key=api_key)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["disp", "report", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    monkeypatch.setattr(report, "open_client", connect)
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def job_id(service: Service, dataset: Path, request_for: Callable[..., object]) -> str:
    with service.client() as client:
        found = client.create_job(request_for(client.upload(dataset).id)).id  # type: ignore[arg-type]
    service.work("succeed")
    return str(found)


def sign_with(service: Service, monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    """Give the gateway of the test a key."""
    state = service.wire.inner.app.state  # type: ignore[attr-defined]
    monkeypatch.setattr(state, "gateway", replace(state.gateway, signer=Signer(seed)))


def test_a_report_is_fetched_verified_and_found_out_when_changed(
    disp: Disp, service: Service, job_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sign_with(service, monkeypatch, SEED)
    assert disp(job_id, "--out", "r.json") == 0
    assert disp("key") == 0 and PUBLIC in capsys.readouterr().out
    assert disp("verify", "r.json", "--public-key", PUBLIC) == 0
    assert f"{job_id}, signed by {PUBLIC}" in capsys.readouterr().out
    kept = json.loads((tmp_path / "r.json").read_bytes())
    (tmp_path / "r.json").write_text(json.dumps(kept | {"seeds": {}}))
    assert disp("verify", "r.json", "--public-key", PUBLIC) == cli.REFUSED
    assert "changed" in capsys.readouterr().err


def test_a_report_is_one_page_too(disp: Disp, job_id: str, tmp_path: Path) -> None:
    assert disp(job_id, "--html") == 0
    assert (tmp_path / f"{job_id}.report.html").read_text() == "<p>report</p>"


def test_where_nothing_signs_the_report_comes_without_signature(
    disp: Disp, job_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disp(job_id) == 0
    assert "signs no reports" in capsys.readouterr().err
    written = tmp_path / f"{job_id}.report.json"
    assert json.loads(written.read_bytes())["seeds"] == {"seed": 0}
    assert disp("verify", str(written), "--public-key", PUBLIC) == cli.REFUSED
