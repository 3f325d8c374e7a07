import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest

from client import cli
from client.commands import exits, jobs, submission
from client.errors import Unavailable
from client.local import LocalEnd
from client.sdk import Client
from disp_engine.errors import Aborted, InvalidModelError
from disp_engine.registry import builtin_models
from storage.connect import open_job_store
from tests.api.world import safetensors
from tests.client.conftest import Service

Disp = Callable[..., int]


@pytest.fixture
def disp(service: Service, monkeypatch: pytest.MonkeyPatch) -> Disp:
    """Run the command against the service of the test; returns its exit status."""

    def connect(url: str | None, api_key: str | None, patience_s: float = 5.0) -> Client:
        return service.client(api_key=api_key)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["disp", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    for module in (jobs, submission):
        monkeypatch.setattr(module, "open_client", connect)
    return run


def created(capsys: pytest.CaptureFixture[str]) -> str:
    job_id: str = json.loads(capsys.readouterr().out)["id"]
    return job_id


def test_help_tells_what_is_taken_where_nothing_is_given(
    disp: Disp, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disp("fetch", "-h") == 0
    assert "[artifacts/JOB]" in capsys.readouterr().out, "brackets are not markup"


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


def test_a_job_is_paused_resumed_cancelled_retried_and_deleted(
    disp: Disp, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disp("submit", str(dataset), "--model", "tiny", "--json")
    job_id = created(capsys)
    for word, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert disp(word, job_id) == 0
        assert capsys.readouterr().out == f"{status}\n"
    assert disp("pause", job_id) == cli.REFUSED
    capsys.readouterr()
    assert disp("retry", job_id, "--json") == 0
    assert created(capsys) != job_id
    assert disp("delete", job_id) == 0
    assert capsys.readouterr().out == f"{job_id} deleted\n"
    assert disp("status", job_id) == cli.REFUSED


def test_the_settings_given_reach_the_job_and_no_others(
    disp: Disp, service: Service, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disp("submit", str(dataset), "--model", "tiny", "--mask-ratio", "0.4", "--seed", "3", "--json")
    job = service.client().job(created(capsys))
    assert job.method.hyperparameters.model_dump(exclude_none=True) == {"mask_ratio": 0.4}
    assert job.seed == 3


def test_a_projector_to_start_from_goes_up_with_the_dataset(
    disp: Disp, service: Service, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "mm_projector.safetensors"
    checkpoint.write_bytes(safetensors())
    words = ("--checkpoint", str(checkpoint), "--stage", "detect", "--stage", "purify")
    assert disp("submit", str(dataset), "--model", "tiny", *words, "--json") == 0
    job = service.client().job(created(capsys))
    assert job.stages == ["detect", "purify"] and job.checkpoint_file is not None
    assert service.store.file_blob("acme", job.checkpoint_file).bytes == len(safetensors())


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


@pytest.mark.parametrize(
    "words", [("--model", "no model"), ("--epochs", "0"), ("--masking", "loud")]
)
def test_a_request_that_cannot_be_is_refused_before_anything_is_uploaded(
    disp: Disp,
    service: Service,
    dataset: Path,
    words: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert disp("submit", str(dataset), *words) == cli.USAGE
    assert capsys.readouterr().err.startswith(f"error: {words[0].removeprefix('--')}: ")
    assert not service.wire.seen


def test_a_folder_is_to_be_packed(
    disp: Disp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disp("submit", str(tmp_path)) == cli.USAGE
    assert f"cd {tmp_path} && zip -r" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_wrong_usage(
    disp: Disp, service: Service, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disp("submit", str(dataset), "--model", "tiny", "--json")
    job_id = created(capsys)
    service.work("succeed")
    assert disp("fetch", job_id, "--out", str(dataset / "out")) == cli.USAGE
    assert "Not a directory" in capsys.readouterr().err


def test_a_stopped_purification_tells_how_it_goes_on(
    disp: Disp,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("client.local.run_engine", lambda run, view: LocalEnd(75, None, ""))
    words = ("--model", str(tmp_path), "--data", str(dataset), "--out", str(tmp_path / "out"))
    assert disp("purify", *words) == exits.STOPPED
    assert f"kept in {tmp_path}/out.work: the same command" in capsys.readouterr().err


def test_a_stopped_table_is_told_apart_from_a_refused_one(
    disp: Disp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, status in ((Aborted(), exits.STOPPED), (InvalidModelError("none"), cli.REFUSED)):
        monkeypatch.setattr("client.bench.measure_table", Mock(side_effect=error))
        assert disp("bench", "table1", "--out", str(tmp_path)) == status
    told = capsys.readouterr().err
    assert f"stopped; all finished work is kept in {tmp_path}/work" in told and "error: " in told


def test_prepare_makes_a_database_whose_key_opens_it(
    disp: Disp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    assert disp("prepare", "--database-url", url, "--tenant", "acme") == 0
    store = open_job_store(url)
    key = store.authenticate(capsys.readouterr().out.strip())
    assert key is not None and key.tenant == "acme"
    built_in = [card["id"] for card in builtin_models()]
    assert [model.id for model in store.list_models()] == sorted(built_in)
    store.close()


@pytest.mark.parametrize(
    ("url", "status"),
    [("no url at all", cli.USAGE), ("sqlite:////no/such/folder/disp.db", cli.UNAVAILABLE)],
)
def test_a_database_that_cannot_be_prepared_is_told_without_a_traceback(
    disp: Disp, url: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disp("prepare", "--database-url", url) == status
    assert capsys.readouterr().err.startswith("error: ")


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
    def away(url: str | None, api_key: str | None, patience_s: float = 5.0) -> Client:
        raise Unavailable("nobody listens")

    monkeypatch.setattr(jobs, "open_client", away)
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
