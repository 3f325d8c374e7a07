"""Whole runs of which only parts are asked for, and runs from another projector."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from disp_engine.errors import EngineError, InvalidModelError, InvalidRequestError, UnsafeFormat
from disp_engine.run import run
from disp_engine.sharing import Sharing
from disp_engine.spec import RunSpec
from tests.engine.models import FIXTURE, random_llada_v
from tests.engine.test_disp import RECORDS, Desk, Listener, dataset

QUICK = {
    "epochs": 1, "batch_size": 2, "micro_batch": 2, "block_length": 4, "generation_length": 4,
    "probes": 2, "fit_memory": False,
}  # fmt: skip
DATASET, PROJECTOR = "purified_dataset.zip", "mm_projector.safetensors"
ALWAYS = {"samples.jsonl", "report.json", "report.html"}
FOUND = {"previews.bin"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, and the stages that all runs of this module share."""
    found = tmp_path_factory.mktemp("asked")
    dataset(found, RECORDS)
    return found


def do(
    folder: Path, out: Path, sharing: Sharing | None = None, **fields: Any
) -> tuple[dict[str, Any], Listener]:
    listener = Listener()
    given: dict[str, Any] = {
        "model_dir": FIXTURE,
        "model_id": "tiny",
        "training_file": folder / "data.zip",
        "clean_file": folder / "data.zip",
        "work_dir": folder / "work",
        "out_dir": out,
        "method": {"type": "disp", "hyperparameters": QUICK},
    }
    run(RunSpec(**given | fields), listener, sharing)
    return json.loads((out / "report.json").read_text()), listener


@pytest.mark.parametrize(
    ("stages", "left", "done"),
    [
        (["detect"], FOUND, {"saliency", "detect"}),
        (["detect", "purify"], FOUND | {DATASET}, {"saliency", "detect", "purify"}),
        (["purify", "retrain"], {DATASET, PROJECTOR}, {"saliency", "purify", "retrain"}),
        (["evaluate"], set(), {"evaluate_before"}),
        (
            ["detect", "purify", "retrain", "evaluate"],
            FOUND | {DATASET, PROJECTOR},
            {"saliency", "detect", "purify", "retrain", "evaluate_before", "evaluate_after"},
        ),
    ],
)
def test_a_run_does_and_leaves_what_is_asked_for(
    folder: Path, tmp_path: Path, stages: list[str], left: set[str], done: set[str]
) -> None:
    report, listener = do(folder, tmp_path, stages=stages)
    assert {path.name for path in tmp_path.iterdir()} == ALWAYS | left
    assert set(listener.reused) == {"ingest", "fine_tune", "report"} | done
    assert ("verdict" in report) == ("detect" in stages)
    measured = report["evaluation"]
    assert (measured["before"]["clean_performance"] is None) == ("evaluate" not in stages)
    assert (measured["after"]["clean_performance"] is None) == ("evaluate_after" not in done)
    assert report["samples"]["rewritten"] == (3 if "purify" in stages else 0)
    assert sum(report["samples"][fate] for fate in ("rewritten", "kept")) == 3
    assert report["settings"]["stages"] == sorted(stages)


def test_the_verdict_alone_needs_no_new_response_and_shows_every_sample(
    folder: Path, tmp_path: Path
) -> None:
    report, _ = do(folder, tmp_path, stages=["detect"])
    assert "response_disagreement" not in report["verdict"]["detectors"]
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["kept"] * 3
    assert all("heat" in line and "score" in line for line in lines)
    assert "purified_projector" not in report["hashes"]


@pytest.mark.parametrize(
    ("stages", "offered"), [(["detect"], ["saliency"]), (["evaluate"], []),
                            (["purify"], ["saliency", "purify"])],
)  # fmt: skip
def test_others_are_offered_only_what_is_asked_for(
    folder: Path, tmp_path: Path, stages: list[str], offered: list[str]
) -> None:
    desk = Desk()
    do(folder, tmp_path, desk, stages=stages)
    assert [name.partition("-")[0] for name in desk.offered] == offered


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"stages": []}, "one or several"),
        ({"stages": ["retrain"]}, "needs purify"),
        ({"stages": ["purify"], "artifacts": ["merged_checkpoint"]}, "needs the stage retrain"),
        ({"stages": ["detect"], "method": {"type": "pruning"}}, "has no verdict"),
        ({"stages": ["purify"], "method": {"type": "disp", "hyperparameters": QUICK | {
            "rewrite_above": "auto"}}}, "needs detect"),
    ],
)  # fmt: skip
def test_stages_that_lack_another_are_refused(
    folder: Path, tmp_path: Path, fields: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidRequestError, match=match):
        do(folder, tmp_path, **fields)


def moved(path: Path, **changes: torch.Tensor) -> Path:
    """The model's own projector, a little off, with `changes` by the ends of names."""
    random_llada_v().save_projector(path)
    tensors = {name: 1.01 * value for name, value in load_file(path).items()}
    for name, value in tensors.items():
        tensors[name] = changes.get(name.rsplit(".", 1)[1], value).clone()
    save_file(tensors, path)
    return path


def test_a_run_starts_from_the_given_projector_and_takes_it_for_its_own(
    folder: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.safetensors"
    random_llada_v().save_projector(own)
    plain, _ = do(folder, tmp_path / "plain", stages=["evaluate"])
    same, again = do(folder, tmp_path / "same", stages=["evaluate"], checkpoint_file=own)
    assert same["content_sha256"] == plain["content_sha256"]
    assert again.reused["fine_tune"], "the same projector is the same work"
    other = moved(tmp_path / "other.safetensors")
    found, anew = do(folder, tmp_path / "other", stages=["evaluate"], checkpoint_file=other)
    assert not anew.reused["fine_tune"]
    assert found["hashes"]["base_projector"] != plain["hashes"]["base_projector"]
    assert found["hashes"]["model"] == plain["hashes"]["model"]


def name_it_twice(path: Path) -> None:
    content = moved(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].decode().rstrip()
    name, told = next(i for i in json.loads(header).items() if i[0] != "__metadata__")
    header = header[:-1] + ", " + json.dumps({name: told})[1:]
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + content[8 + length :])


def give_another_name(path: Path) -> None:
    tensors = load_file(moved(path))
    save_file({f"x.{name}": value for name, value in tensors.items()}, path)


HOSTILE = {
    "a name twice": (name_it_twice, "a second time", InvalidModelError),
    "names of no projector": (give_another_name, "do not fit", InvalidModelError),
    "another shape": (lambda p: moved(p, bias=torch.zeros(3)), "has shape", InvalidModelError),
    "not a number": (
        lambda p: moved(p, bias=torch.full((64,), torch.nan)), "not finite", InvalidModelError,
    ),
    "too large for float32": (
        lambda p: moved(p, bias=torch.full((64,), 1e300, dtype=torch.float64)), "cannot",
        InvalidModelError,
    ),
    "integers": (
        lambda p: moved(p, bias=torch.zeros(64, dtype=torch.int64)), "dtype I64", InvalidModelError,
    ),
    "bytes behind": (
        lambda p: p.write_bytes(moved(p).read_bytes() + b"x"), "no tensor", InvalidModelError,
    ),
    "a pickle": (lambda p: torch.save({"w": torch.zeros(3)}, p), "is a pickle", UnsafeFormat),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_projector_is_refused_and_named(folder: Path, tmp_path: Path, case: str) -> None:
    make, match, kind = HOSTILE[case]
    path = tmp_path / "p.safetensors"
    make(path)  # type: ignore[operator]
    with pytest.raises(EngineError, match=match) as refused:
        do(folder, tmp_path / "out", stages=["evaluate"], checkpoint_file=path)
    assert type(refused.value) is kind and refused.value.param == "checkpoint_file"
    assert not (tmp_path / "out" / "report.json").exists()
