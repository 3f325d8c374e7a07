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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, TextIO

from disp_engine.errors import (
    Aborted,
    EngineError,
    InvalidDatasetError,
    InvalidModelError,
    InvalidRequestError,
)
from disp_engine.isolation import leave_network

INPUT_AT_FAULT = 2
STOPPED = 75
LONGEST_MESSAGE, LONGEST_REASON = 4000, 500
"""Characters; what strangers have named may be long."""
PARAMS: dict[type[EngineError], str | None] = {
    InvalidDatasetError: "training_file",
    InvalidModelError: "model",
    InvalidRequestError: None,
}
"""The errors of which the input is the cause, and the field that is at fault if none is named."""
PR_SET_PDEATHSIG = 1
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
COURTESY = 5
"""Added to the niceness: whoever answers requests on this machine goes first."""

if TYPE_CHECKING:
    from disp_engine.sharing import Part
    from disp_engine.stages import Stage


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

    def should_abort(self) -> bool:
        """Whether the run was asked to stop."""
        return self.stopping.is_set()


class SharedWork:
    """The run's `Sharing`: asks the parent process, which knows the other runs."""

    def __init__(self, context: JsonLines) -> None:
        self._context = context

    def offer(self, source: "Stage", stages: "Sequence[Stage]", samples: int, cut: int) -> None:
        """Tell of work that others may take parts of, if any is left."""
        left = [stage.folder.name for stage in stages if not stage.complete]
        if left:
            self._context.write(
                type="shards_offered", source=source.folder.name, folders=left, samples=samples,
                cut=cut,
            )  # fmt: skip

    def parts(self, stage: "Stage", samples: int) -> "Iterator[Part]":
        """Yield the parts that the parent grants, until it says that all files are there."""
        from disp_engine.sharing import Part

        folder = stage.folder.name
        while not stage.complete:
            self._context.write(type="shard_wanted", folder=folder)
            granted = self._answer()
            if granted is None:
                return
            yield Part(**granted)
            self._context.write(
                type="shard_done", folder=folder, first=granted["first"], last=granted["last"]
            )

    def _answer(self) -> dict[str, int] | None:
        while not self._context.should_abort():
            try:
                granted: dict[str, int] | None = json.loads(self._context.answers.get(timeout=0.1))
                return granted
            except Empty:
                continue
        raise Aborted("The run was asked to stop.")


def main(argv: list[str]) -> int:
    """Run the spec named on the command line."""
    if len(argv) != 2:
        print("usage: python -m disp_engine SPEC.json", file=sys.stderr)
        return INPUT_AT_FAULT
    left = leave_network()
    _die_with_parent()
    _keep_freed_memory()
    os.nice(COURTESY)
    if not left:
        print("the engine keeps its network: this system lets no process leave it", file=sys.stderr)
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not mix with the events
    context = JsonLines(events)
    signal.signal(signal.SIGTERM, lambda *_: context.stopping.set())
    threading.Thread(target=_listen, args=(context.answers,), daemon=True).start()
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
    from disp_engine.ingest import ingest
    from disp_engine.spec import RunSpec

    spec = RunSpec.from_file(path)
    context.stage("ingest")
    ingested = ingest(spec, context)

    from disp_engine.run import run  # imports torch: only for data that can be used
    from disp_engine.sharing import Alone

    sharing = Alone() if spec.role == "alone" else SharedWork(context)
    run(spec, context, sharing, ingested)


def _refuse(error: EngineError, context: JsonLines) -> int:
    kind = next((kind for kind in PARAMS if isinstance(error, kind)), None)
    context.write(
        type="error",
        code=error.code,
        message=str(error)[:LONGEST_MESSAGE],
        param=error.param or (PARAMS[kind] if kind else None),
        faults=[
            asdict(replace(fault, reason=fault.reason[:LONGEST_REASON])) for fault in error.faults
        ],
    )
    return INPUT_AT_FAULT if kind else 1


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends; leave if that is too late."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.get("ENGINE_PARENT_PID")
    if parent is not None and int(parent) != os.getppid():
        os._exit(STOPPED)


def _keep_freed_memory() -> None:
    """Tell glibc to keep what is freed, since the next tensor would fault each page in again."""
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def _listen(answers: "Queue[bytes]") -> None:
    """Take the parent's answers; leave at once when it is gone, for finished work is on disk."""
    if not sys.stdin.isatty():
        held = b""
        while read := os.read(0, 4096):  # not sys.stdin, whose lock would be held when Python ends
            *lines, held = (held + read).split(b"\n")
            for line in lines:
                answers.put(line)
        os._exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
