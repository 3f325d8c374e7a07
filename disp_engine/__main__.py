"""The engine as a process: `python -m disp_engine SPEC.json`, JSON lines on stdout.

It stops at the next saved point on SIGTERM and when its stdin ends (exit 75), and dies with
its parent. Exit 2 means that the input is at fault, exit 1 that the engine is.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from disp_engine.errors import (
    Aborted,
    EngineError,
    InvalidDatasetError,
    InvalidModelError,
    InvalidRequestError,
)

INPUT_AT_FAULT = 2
STOPPED = 75
CODES: dict[type[EngineError], tuple[str, str | None]] = {
    InvalidDatasetError: ("invalid_dataset", "training_file"),
    InvalidModelError: ("invalid_model", "model"),
    InvalidRequestError: ("invalid_request", None),
}
PR_SET_PDEATHSIG = 1


class JsonLines:
    """The run's context: writes each event as a line, progress at most five times a second."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.name: str | None = None
        self.stopping = threading.Event()
        self._last = 0.0

    def write(self, **event: Any) -> None:
        """Write one event at once."""
        self.out.write(json.dumps(event, allow_nan=False) + "\n")
        self.out.flush()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self.name = name
        self.write(type="stage", stage=name, status="running")

    def stage_done(self, name: str, seconds: float, reused: bool) -> None:
        """A stage is done, now or in an earlier run."""
        self.write(type="stage", stage=name, status="succeeded", seconds=seconds, reused=reused)

    def progress(self, done: int, total: int, unit: str) -> None:
        """So much of the stage is done."""
        now = time.monotonic()
        if done >= total or now - self._last >= 0.2:
            self._last = now
            self.write(type="progress", stage=self.name, done=done, total=total, unit=unit)

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Values measured at a step."""
        self.write(type="metric", stage=self.name, step=step, values=dict(values))

    def message(self, level: str, text: str) -> None:
        """Something a reader should know."""
        self.write(type="message", level=level, stage=self.name, text=text)

    def should_abort(self) -> bool:
        """Whether the run was asked to stop."""
        return self.stopping.is_set()


def main(argv: list[str]) -> int:
    """Run the spec named on the command line."""
    if len(argv) != 2:
        print("usage: python -m disp_engine SPEC.json", file=sys.stderr)
        return INPUT_AT_FAULT
    _die_with_parent()
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not mix with the events
    context = JsonLines(events)
    signal.signal(signal.SIGTERM, lambda *_: context.stopping.set())
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    try:
        _run(Path(argv[1]), context)
    except Aborted:
        return STOPPED
    except EngineError as error:
        return _refuse(error, context)
    except Exception as error:
        traceback.print_exc()
        context.write(type="error", code="engine_error", message=str(error), param=None)
        return 1
    context.write(type="done")
    return 0


def _run(path: Path, context: JsonLines) -> None:
    from disp_engine.run import run
    from disp_engine.spec import RunSpec

    run(RunSpec.from_file(path), context)


def _refuse(error: EngineError, context: JsonLines) -> int:
    code, param = CODES.get(type(error), ("engine_error", None))
    context.write(type="error", code=code, message=str(error), param=error.param or param)
    return INPUT_AT_FAULT if type(error) in CODES else 1


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends; leave if that is too late."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.get("ENGINE_PARENT_PID")
    if parent is not None and int(parent) != os.getppid():
        os._exit(STOPPED)


def _stop_at_end_of_input() -> None:
    """Leave at once when the parent is gone; all finished work is on disk."""
    if not sys.stdin.isatty():
        while os.read(0, 4096):  # not sys.stdin, whose lock would be held when Python ends
            pass
        os._exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
