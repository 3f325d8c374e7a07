"""A process of the engine's: what it gives up first, how it is stopped, how it ends.

It stops at the next saved point on SIGTERM and when its stdin ends (exit 75), and dies with
its parent. Exit 2 means that the input is at fault, exit 1 that the engine is.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from queue import Queue
from typing import NoReturn

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
COURTESY = 5
"""Added to the niceness: whoever answers requests on this machine goes first."""


def run_process(work: Callable[[JsonLines], None]) -> int:
    """Do `work` and return this process's exit status; JSON lines on stdout tell of it."""
    left = leave_network()
    die_with_parent()
    os.nice(COURTESY)
    if not left:
        print("the engine keeps its network: this system lets no process leave it", file=sys.stderr)
    context = JsonLines(take_stdout())
    signal.signal(signal.SIGTERM, lambda *_: context.stopping.set())
    threading.Thread(target=_listen, args=(context.answers,), daemon=True).start()
    try:
        work(context)
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


def leave(status: int) -> NoReturn:
    """End with a status at once: Python would take seconds to take everything apart first."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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


def _listen(answers: "Queue[bytes]") -> None:
    """Take the parent's answers; leave at once when it is gone, for finished work is on disk."""
    if not sys.stdin.isatty():
        held = b""
        while read := os.read(0, 4096):  # not sys.stdin, whose lock would be held when Python ends
            *lines, held = (held + read).split(b"\n")
            for line in lines:
                answers.put(line)
        os._exit(STOPPED)
