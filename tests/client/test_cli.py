import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client import cli
from client.errors import Unavailable
from client.sdk import Client
from tests.client.conftest import Service

Disp = Callable[..., int]


@pytest.fixture
def disp(service: Service, monkeypatch: pytest.MonkeyPatch) -> Disp:
    """Run the command against the service of the test; returns its exit status."""

    def connect(url: str | None, api_key: str | None) -> Client:
        return service.client(api_key=api_key)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["disp", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    monkeypatch.setattr(cli, "open_client", connect)
    return run


def created(capsys: pytest.CaptureFixture[str]) -> str:
    job_id: str = json.loads(capsys.readouterr().out)["id"]
    return job_id


def test_submit_watch_and_fetch_bring_the_artifacts(
    disp: Disp, service: Service, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disp("submit", str(dataset), "--model", "tiny", "--mask-ratio", "0.4", "--json") == 0
    job_id = created(capsys)
    service.work("succeed")
    assert disp("watch", job_id) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{job_id} succeeded\n"
    assert "warn: a word of warning" in shown.err
    assert disp("fetch", job_id, "--out", str(tmp_path / "out")) == 0
    assert (tmp_path / "out" / "purified_dataset.zip").read_bytes() == dataset.read_bytes()


def test_the_settings_given_reach_the_job_and_no_others(
    disp: Disp, service: Service, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disp("submit", str(dataset), "--model", "tiny", "--mask-ratio", "0.4", "--seed", "3", "--json")
    job = service.client().job(created(capsys))
    assert job.method.hyperparameters.model_dump(exclude_none=True) == {"mask_ratio": 0.4}
    assert job.seed == 3


def test_a_failed_job_ends_with_status_one_and_its_reason(
    disp: Disp, service: Service, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disp("submit", str(dataset), "--model", "tiny", "--json")
    job_id = created(capsys)
    service.work("refuse")
    assert disp("watch", job_id) == cli.FAILED
    assert "invalid_dataset: no LLaVA JSON" in capsys.readouterr().err


def test_wrong_usage_ends_with_status_two(disp: Disp, tmp_path: Path) -> None:
    assert disp("submit", str(tmp_path / "missing.zip"), "--model", "tiny") == cli.USAGE
    assert disp("submit", "--no-such-option") == cli.USAGE


def test_an_attack_without_a_matcher_is_wrong_usage(disp: Disp, dataset: Path) -> None:
    words = ("submit", str(dataset), "--model", "tiny", "--triggered", str(dataset))
    assert disp(*words) == cli.USAGE


def test_refused_input_ends_with_status_three(disp: Disp, dataset: Path, tmp_path: Path) -> None:
    assert disp("submit", str(dataset), "--model", "no-such-model") == cli.REFUSED
    text = tmp_path / "data.txt"
    text.write_text("no archive")
    assert disp("submit", str(text), "--model", "tiny") == cli.REFUSED


def test_a_wrong_key_ends_with_status_four(disp: Disp) -> None:
    assert disp("status", "--api-key", "disp_nobody") == cli.NOT_AUTHORISED


def test_an_unreachable_service_ends_with_status_five(
    disp: Disp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(url: str | None, api_key: str | None) -> Client:
        raise Unavailable("nobody listens")

    monkeypatch.setattr(cli, "open_client", away)
    assert disp("status") == cli.UNAVAILABLE


def test_status_shows_the_stages_of_a_job(
    disp: Disp, service: Service, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disp("submit", str(dataset), "--model", "tiny", "--json")
    job_id = created(capsys)
    service.work("succeed")
    assert disp("status", job_id) == 0
    shown = capsys.readouterr().out
    assert "4/4 samples" in shown and "succeeded (reused)" in shown


def test_help_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, client.cli; "
        "print([m for m in ('torch', 'disp_engine', 'sqlalchemy', 'celery') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert output.stdout == "[]\n"
