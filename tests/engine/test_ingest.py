"""The engine's process as a worker starts it, on data that it must refuse."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from disp_engine.registry import BUILTIN
from tests.engine.test_dataset import make_zip, png, record

TINY = BUILTIN / "disp-tiny-llada-v"


def engine(folder: Path, **fields: Any) -> tuple[int, list[dict[str, Any]]]:
    """Run a spec; returns how the process ended and what it said."""
    spec = {
        "model_dir": str(TINY),
        "model_id": "tiny",
        "training_file": str(folder / "d.zip"),
        "work_dir": str(folder / "work"),
        "out_dir": str(folder / "out"),
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec | fields))
    command = [sys.executable, "-X", "importtime", "-m", "disp_engine", str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        imported = process.stderr.read()
        said = [json.loads(line) for line in process.stdout.read().splitlines()]
    modules = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert "disp_engine.ingest" in modules and "torch" not in modules
    return process.returncode, said


def test_bad_data_are_refused_with_every_fault_before_torch_is_imported(tmp_path: Path) -> None:
    members = {"data.json": json.dumps([record(), record()]).encode(), "images/a.png": png()}
    make_zip(tmp_path / "d.zip", members)
    status, said = engine(tmp_path, validation="strict")
    assert status == 2
    assert said[0] == {"type": "stage", "stage": "ingest", "status": "running"}
    found, refused = said[1:]
    assert refused["type"] == "error" and refused["code"] == "invalid_dataset"
    assert refused["param"] == "training_file"
    assert [fault["reason"] for fault in refused["faults"]] == ["the id 'a' is there twice"]
    assert found == {
        "type": "validated",
        "param": "training_file",
        "records": 2,
        "usable": 2,
        "repeated_ids": 1,
        "fault_count": 1,
        "faults": refused["faults"],
        "error": {"code": refused["code"], "message": refused["message"]},
    }


def test_of_several_files_the_one_at_fault_is_named(tmp_path: Path) -> None:
    members = {"data.json": json.dumps([record()]).encode(), "images/a.png": png()}
    make_zip(tmp_path / "d.zip", members)
    make_zip(tmp_path / "clean.zip", {"../x.json": b"[]"})
    status, said = engine(tmp_path, clean_file=str(tmp_path / "clean.zip"))
    assert status == 2
    training, clean, refused = said[1:]
    assert (training["param"], training["usable"], training["error"]) == ("training_file", 1, None)
    assert (clean["param"], clean["error"]["code"]) == ("clean_file", "archive_unsafe_member")
    assert (refused["code"], refused["param"]) == ("archive_unsafe_member", "clean_file")


def test_a_model_that_asks_for_code_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    status, said = engine(tmp_path, model_dir=str(model))
    assert (status, said[1]["code"], said[1]["param"]) == (2, "remote_code_refused", "model")
