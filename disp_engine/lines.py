"""A run's events as lines of JSON, for the process that has started it."""

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from queue import Queue
from typing import Any, TextIO

from disp_engine.errors import EngineError, Fault, Judgement

LONGEST_MESSAGE, LONGEST_REASON = 4000, 500
"""Characters; what strangers have named may be long."""


def shown(faults: Iterable[Fault]) -> list[dict[str, str]]:
    """Faults for a reader, of bounded length."""
    return [asdict(replace(fault, reason=fault.reason[:LONGEST_REASON])) for fault in faults]


def take_stdout() -> TextIO:
    """The process's stdout; whatever else prints goes to stderr from now on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


class JsonLines:
    """The run's context: writes each event as a line, progress at most five times a second."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.name: str | None = None
        self.stopping = threading.Event()
        self.answers: Queue[bytes] = Queue()
        self._last = 0.0

    def write(self, **event: Any) -> None:
        """Write one event at once."""
        self.out.write(json.dumps(event, allow_nan=False) + "\n")
        self.out.flush()

    def stage(self, name: str) -> None:
        """A stage begins; the run may say so once more of the one that is at hand."""
        if name != self.name:
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

    def validated(self, param: str, judgement: Judgement, error: EngineError | None) -> None:
        """What was found in one of the run's files."""
        facts = asdict(judgement) | {"faults": shown(judgement.faults)}
        refusal = {"code": error.code, "message": str(error)[:LONGEST_MESSAGE]} if error else None
        self.write(type="validated", param=param, error=refusal, **facts)

    def should_abort(self) -> bool:
        """Whether the run was asked to stop."""
        return self.stopping.is_set()
