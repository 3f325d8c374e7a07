"""`disp models` and `disp export` on a recorded checkpoint."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from client import cli

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
