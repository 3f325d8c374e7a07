"""Several processes that tune one projector together, each on a GPU of its own.

The run itself stays one process: for each tuning it starts `accelerate launch`, whose ranks load
the model once more, divide each batch's micro-batches among them and keep the state in the tuning's
stage. What they leave is what one process would have left (training/gradient.py).
"""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from disp_engine.context import RunContext
from disp_engine.errors import Aborted, EngineError, InvalidRequestError
from disp_engine.isolation import raise_loopback
from disp_engine.parentage import PARENT_VARIABLE
from disp_engine.records import Sample, Turn
from disp_engine.stages import StageFolder
from disp_engine.training.settings import FineTuning

START, ASSIGNMENT = ".start.safetensors", ".assignment.json"
POLL_S = 0.2
_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
SOCKETS = {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK}


@dataclass(frozen=True)
class Assignment:
    """What the ranks are told, as JSON; the projector to start from lies beside it."""

    model_dir: Path
    model_options: Mapping[str, Any]
    root: Path
    threads: int | None
    samples: Sequence[Sample]
    settings: FineTuning
    seed: int

    def write(self, stage: StageFolder) -> None:
        """Put it into a tuning's stage."""
        stage.write_json(
            ASSIGNMENT,
            {
                "model_dir": str(self.model_dir),
                "model_options": dict(self.model_options),
                "root": str(self.root),
                "threads": self.threads,
                "samples": [
                    [s.id, list(s.images), [[t.role, t.text] for t in s.turns]]
                    for s in self.samples
                ],
                "settings": asdict(self.settings),
                "seed": self.seed,
            },
        )

    @classmethod
    def read(cls, stage: StageFolder) -> "Assignment":
        """Return what `write` wrote."""
        raw = stage.read_json(ASSIGNMENT)
        return cls(
            model_dir=Path(raw["model_dir"]),
            model_options=raw["model_options"],
            root=Path(raw["root"]),
            threads=raw["threads"],
            samples=[
                Sample(name, tuple(images), tuple(Turn(*turn) for turn in turns))
                for name, images, turns in raw["samples"]
            ],
            settings=FineTuning(**raw["settings"]),
            seed=raw["seed"],
        )


@dataclass(frozen=True)
class Ranks:
    """`count` processes for each tuning of the model in `model_dir`; features lie below `root`."""

    count: int
    model_dir: Path
    model_options: Mapping[str, Any]
    root: Path
    threads: int | None = None

    def wanted(self, settings: FineTuning) -> int:
        """How many have something to do: a batch may have fewer micro-batches than there are."""
        return min(self.count, math.ceil(settings.batch_size / settings.micro_batch))

    def tune(
        self,
        projector: nn.Module,
        samples: Sequence[Sample],
        settings: FineTuning,
        seed: int,
        stage: StageFolder,
        context: RunContext,
    ) -> None:
        """Leave the state of the finished tuning in `stage`; the pictures' features are there."""
        given = (self.model_dir, self.model_options, self.root, self.threads)
        Assignment(*given, samples, settings, seed).write(stage)
        stage.write_tensors(START, dict(projector.named_parameters()))
        raise_loopback()
        torch.cuda.empty_cache()  # the first rank shares this process's GPU
        count = self.wanted(settings)
        context.message("info", f"{count} processes tune together.")
        _run(_command(count, stage), context)
        for name in (START, ASSIGNMENT):
            stage.remove(name)


def _command(count: int, stage: StageFolder) -> list[str]:
    launch = [sys.executable, "-m", "disp_engine.training.launch", "--multi_gpu"]
    launch += ["--num_processes", str(count), "--num_machines", "1", "--machine_rank", "0"]
    launch += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*launch, "-m", "disp_engine.training.rank", str(stage.folder)]


def _run(command: Sequence[str], context: RunContext) -> None:
    """Pass on what the first rank tells; to all, the end of their stdin means that they stop."""
    environment = os.environ | SOCKETS | {PARENT_VARIABLE: str(os.getpid())}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) as process:
        ended = threading.Event()
        threading.Thread(target=_stop_when_asked, args=(context, process, ended)).start()
        try:
            assert process.stdout is not None
            told = [_hear(line, context) for line in process.stdout]
            status = process.wait()
        finally:
            ended.set()
            process.kill()
    if "done" in told:
        return
    if context.should_abort():
        raise Aborted("The tuning was asked to stop.")
    raise EngineError(f"the processes that tune together ended with status {status}.")


def _stop_when_asked(
    context: RunContext, process: "subprocess.Popen[bytes]", ended: threading.Event
) -> None:
    while not ended.wait(POLL_S):
        if context.should_abort():
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            return


def _hear(line: bytes, context: RunContext) -> str | None:
    """Pass an event on and return its type; None for what the launcher may have printed."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    match event["type"]:
        case "metric":
            context.metric(event["step"], event["values"])
        case "progress":
            context.progress(event["done"], event["total"], event["unit"])
        case "error":
            raise InvalidRequestError(event["message"])
    return str(event["type"])
