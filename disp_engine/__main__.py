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
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING

from disp_engine.errors import (
    Aborted,
    EngineError,
    InvalidDatasetError,
    InvalidModelError,
    InvalidRequestError,
)
from disp_engine.isolation import leave_network
from disp_engine.lines import LONGEST_MESSAGE, JsonLines, shown, take_stdout
from disp_engine.parentage import STOPPED, die_with_parent

INPUT_AT_FAULT = 2
PARAMS: dict[type[EngineError], str | None] = {
    InvalidDatasetError: "training_file",
    InvalidModelError: "model",
    InvalidRequestError: None,
}
"""The errors of which the input is the cause, and the field that is at fault if none is named."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
COURTESY = 5
"""Added to the niceness: whoever answers requests on this machine goes first."""

if TYPE_CHECKING:
    from disp_engine.sharing import Part
    from disp_engine.stages import Stage


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
    die_with_parent()
    _keep_freed_memory()
    os.nice(COURTESY)
    if not left:
        print("the engine keeps its network: this system lets no process leave it", file=sys.stderr)
    context = JsonLines(take_stdout())
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
        faults=shown(error.faults),
    )
    return INPUT_AT_FAULT if kind else 1


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
