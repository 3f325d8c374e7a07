"""`disp purify`: the engine's child process on this machine's files, without the service."""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from client.progress import View
from schemas.jobs import Step, StepStatus
from workers.engine_process import EngineProcess
from workers.translate import (
    ErrorMessage,
    Message,
    ProgressMessage,
    StageMessage,
    TextMessage,
    parse,
)

STOP_GRACE_S = 60.0
TICK_S = 0.2
LOG_NAME = "engine.log"


@dataclass(frozen=True)
class LocalRun:
    """What `python -m disp_engine` is asked to do."""

    model_dir: str
    model_id: str
    training_file: str
    triggered_file: str | None
    clean_file: str | None
    checkpoint_file: str | None
    stages: Sequence[str]
    success: dict[str, Any] | None
    method: dict[str, Any]
    defaults: dict[str, Any]
    seed: int
    work_dir: str
    out_dir: str
    threads: int | None
    processes: int | None


@dataclass(frozen=True)
class LocalEnd:
    """How it ended."""

    status: int
    error: ErrorMessage | None
    log_tail: str


def run_engine(run: LocalRun, view: View) -> LocalEnd:
    """Run to the end; Ctrl-C lets the engine save, and the same call goes on from there."""
    work_dir = Path(run.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    Path(run.out_dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="disp-") as folder:
        spec_path = Path(folder) / "spec.json"
        spec_path.write_text(json.dumps(asdict(run)))
        command = [sys.executable, "-m", "disp_engine", str(spec_path)]
        engine = EngineProcess(command, log_path=work_dir / LOG_NAME)

        def ask_to_stop(number: int, frame: FrameType | None) -> None:
            engine.ask_to_stop(STOP_GRACE_S)

        signal.signal(signal.SIGINT, ask_to_stop)
        signal.signal(signal.SIGTERM, ask_to_stop)
        error = _follow(engine, Screen(view))
        return LocalEnd(engine.reap(), error, engine.log_tail())


def _follow(engine: EngineProcess, screen: "Screen") -> ErrorMessage | None:
    error = None
    while not engine.finished:
        line = engine.read(TICK_S)
        message = parse(line) if line is not None else None
        if isinstance(message, ErrorMessage):
            error = message
        elif message is not None:
            screen.take(message)
    return error


class Screen:
    """Turns the engine's messages into the steps that a view shows."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._steps: dict[str, Step] = {}

    def take(self, message: Message) -> None:
        """Show what a message says."""
        if isinstance(message, TextMessage):
            self._view.say(f"{message.level}: {message.text}")
            return
        if not isinstance(message, StageMessage | ProgressMessage):
            return
        step = self._steps.setdefault(message.stage, Step(name=message.stage))
        if isinstance(message, ProgressMessage):
            step.done, step.total, step.unit = message.done, message.total, message.unit
        else:
            _move(step, message)
        self._view.show(step)


def _move(step: Step, message: StageMessage) -> None:
    step.status = StepStatus(message.status)
    step.reused = bool(message.reused)
    if step.status is StepStatus.RUNNING:
        step.started_at = time.time()
    elif step.started_at is not None:
        step.finished_at = step.started_at + (message.seconds or 0.0)
