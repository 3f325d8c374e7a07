"""Two processes over gloo on the CPU, each with one thread, started by `accelerate launch`."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disp_engine import registry
from disp_engine.attacks.poison import build_demo
from disp_engine.context import SilentContext
from disp_engine.data.dataset import Dataset, read_dataset
from disp_engine.errors import Aborted, InvalidRequestError
from disp_engine.stages import Stage
from disp_engine.training.examples import FeatureCache
from disp_engine.training.projector import snapshot, tune_projector
from disp_engine.training.ranks import Ranks
from disp_engine.training.settings import FineTuning
from tests.engine.models import FIXTURE

SETTINGS = FineTuning(epochs=2, learning_rate=1e-2, batch_size=5, micro_batch=2)
SAMPLES = 8
DEATH_S = 20.0


@dataclass
class Heard(SilentContext):
    """Remembers the losses, and asks to stop after `stop_after` of them."""

    stop_after: int | None = None
    losses: list[float] = field(default_factory=list)

    def metric(self, step: int, values) -> None:  # type: ignore[no-untyped-def]
        assert step == len(self.losses), "every step is told once and in order"
        self.losses.append(values["loss"])

    def should_abort(self) -> bool:
        return self.stop_after is not None and len(self.losses) >= self.stop_after


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data")
    archive = build_demo(root, samples=SAMPLES, test=1, seed=0).training
    return read_dataset(archive, root / "pool")


def tune(
    root: Path, data: Dataset, count: int, context: Heard, settings: FineTuning = SETTINGS
) -> dict[str, Tensor]:
    model = registry.load_model(FIXTURE)
    cache = FeatureCache(model, root, context)
    assert not cache.load(data, [name for s in data.samples for name in s.images])
    stage = Stage(root, "tune", {})
    ranks = Ranks(count, FIXTURE, {}, root, threads=1) if count > 1 else None
    tune_projector(model, data.samples, cache, settings, 7, stage, context, ranks=ranks)
    assert stage.complete
    assert not list(stage.folder.glob(".*")), "what the ranks were told is gone"
    return snapshot(model)


def test_two_processes_leave_what_one_leaves(tmp_path: Path, data: Dataset) -> None:
    """Batches of five and three, cut into pairs: an odd number of turns for two processes."""
    alone, together = Heard(), Heard()
    one = tune(tmp_path / "one", data, 1, alone)
    two = tune(tmp_path / "two", data, 2, together)
    assert len(alone.losses) == 4
    assert together.losses == pytest.approx(alone.losses, rel=1e-6)
    start = snapshot(registry.load_model(FIXTURE))
    for name, weights in one.items():
        assert not torch.equal(weights, start[name]), "the tuning changes every weight"
        torch.testing.assert_close(two[name], weights, rtol=1e-6, atol=1e-7)


def test_processes_that_are_stopped_save_and_go_on(tmp_path: Path, data: Dataset) -> None:
    steps = 120
    long = replace(SETTINGS, epochs=steps / 2)
    one = tune(tmp_path / "one", data, 1, Heard(), long)
    stopped = Heard(stop_after=1)
    with pytest.raises(Aborted):
        tune(tmp_path / "two", data, 2, stopped, long)
    assert 1 <= len(stopped.losses) < steps
    rest = Heard(losses=list(stopped.losses))
    two = tune(tmp_path / "two", data, 2, rest, long)
    assert len(rest.losses) == steps
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=1e-6, atol=1e-7)


def test_what_the_processes_refuse_the_run_refuses(tmp_path: Path, data: Dataset) -> None:
    wild = FineTuning(epochs=4, learning_rate=1e30, batch_size=5, micro_batch=2)
    with pytest.raises(InvalidRequestError, match="lower learning_rate"):
        tune(tmp_path, data, 2, Heard(), wild)


def test_no_more_processes_than_micro_batches() -> None:
    ranks = Ranks(8, FIXTURE, {}, Path())
    assert ranks.wanted(FineTuning(batch_size=32, micro_batch=1)) == 8
    assert ranks.wanted(FineTuning(batch_size=32, micro_batch=12)) == 3
    assert ranks.wanted(FineTuning(batch_size=32, micro_batch=32)) == 1


def test_the_processes_die_with_their_run(tmp_path: Path) -> None:
    """The run is the engine's own process, which has left the network before it starts them."""
    archive = build_demo(tmp_path / "data", samples=SAMPLES, test=1, seed=0).training
    settings = {"epochs": 10_000, "batch_size": 4, "micro_batch": 2}
    spec = {
        "model_dir": str(FIXTURE), "model_id": "tiny", "training_file": str(archive),
        "work_dir": str(tmp_path / "work"), "out_dir": str(tmp_path / "out"),
        "method": {"type": "disp", "hyperparameters": settings}, "threads": 1, "processes": 2,
    }  # fmt: skip
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "disp_engine", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        told = iter(map(json.loads, run.stdout))
        assert any(event["type"] == "metric" for event in told), "they tune"
        assert len(ranks_below(tmp_path)) == 2
        os.kill(run.pid, signal.SIGKILL)
    deadline = time.monotonic() + DEATH_S
    while ranks_below(tmp_path):
        assert time.monotonic() < deadline, "they outlive their run"
        time.sleep(0.1)


def ranks_below(folder: Path) -> list[Path]:
    """The processes that tune in a stage below `folder`; launchers have more arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"disp_engine.training.rank" in words and b"--multi_gpu" not in words:
            found += [process] if any(str(folder).encode() in word for word in words) else []
    return found
