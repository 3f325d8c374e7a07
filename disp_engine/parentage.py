"""A process that must not outlive the one that started it."""

import ctypes
import os
import signal
import sys

PARENT_VARIABLE = "ENGINE_PARENT_PID"
STOPPED = 75
"""The exit status of a process that could go on from what it has saved."""
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends; leave if that is too late."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None and int(parent) != os.getppid():
        os._exit(STOPPED)
