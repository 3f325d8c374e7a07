"""`disp models` and `disp export` on a recorded checkpoint."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from client import cli
from client.commands.keys import open_store
from storage.migrate import upgrade

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lavida" / "anyres"
Disp = Callable[..., int]


@pytest.fixture
def disp(monkeypatch: pytest.MonkeyPatch) -> Disp:
    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["disp", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


@pytest.fixture
def projector(tmp_path: Path) -> Path:
    held = load_file(FIXTURE / "model.safetensors")
    path = tmp_path / "mm_projector.safetensors"
    save_file({n: v + 1 for n, v in held.items() if "mm_projector" in n}, path)
    return path


def test_inspect_tells_sizes_and_memory(disp: Disp, capsys: pytest.CaptureFixture[str]) -> None:
    assert disp("models", "inspect", FIXTURE, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == "Lavida" and found["problems"] == []
    assert found["memory"]["weights"] > found["memory"]["features"] > 0
    assert disp("models", "inspect", FIXTURE) == 0
    assert "hidden size, layers: 64, 3" in capsys.readouterr().out


def test_verify_refuses_what_was_changed(
    disp: Disp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disp("models", "verify", FIXTURE, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    copy = tmp_path / "model"
    shutil.copytree(FIXTURE, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert disp("models", "verify", copy) == 3
    assert "problem: model.safetensors is truncated" in capsys.readouterr().err


def test_a_folder_of_no_family_is_refused(
    disp: Disp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disp("models", "inspect", tmp_path) == 3
    assert "config.json is missing" in capsys.readouterr().err


def test_export_writes_a_folder_that_verifies(
    disp: Disp, projector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    assert disp("export", FIXTURE, projector, out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert disp("models", "verify", out) == 0
    assert disp("export", FIXTURE, projector, out) == 3


def test_a_projector_alone_comes_with_the_line_that_loads_it(
    disp: Disp, projector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "alone.safetensors"
    assert disp("export", FIXTURE, projector, out, "--projector-only") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "load_state_dict" in line and str(out) in line and out.is_file()


def test_a_registered_folder_can_be_named_by_jobs(
    disp: Disp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/disp.db"
    upgrade(url)
    words = ("models", "register", FIXTURE, "--id", "mine", "--database-url", url, "--json")
    assert disp(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert disp(*words) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == told["revision"]
    with open_store(url) as store:
        (model,) = store.list_models()
        (record,) = store.list_model_records()
    assert (model.id, model.family, model.kind) == ("mine", "lavida", "diffusion")
    assert model.revision == told["revision"] and model.defaults
    assert record.path == str(FIXTURE.resolve())


def test_a_folder_with_a_problem_is_not_registered(
    disp: Disp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/disp.db"
    upgrade(url)
    folder = tmp_path / "model"
    shutil.copytree(FIXTURE, folder)
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    assert disp("models", "register", folder, "--database-url", url) == 3
    assert "belong to no tensor" in capsys.readouterr().err
    assert disp("models", "register", FIXTURE, "--id", "a/b", "--database-url", url) == 3
    with open_store(url) as store:
        assert store.list_models() == []
