"""The engine as a child process: started without credentials, read line by line, ended for certain.

The child runs in a session of its own. It is asked to stop by SIGTERM to the leader alone (its own
helpers must live until the micro-batch is saved) and ended by SIGKILL to the whole group. Its stdin
is a pipe for answers to what it asks: when the supervisor dies, the engine reads end-of-file and
leaves.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import IO

MAX_LINE_BYTES = 1 << 20
LOG_TAIL_BYTES = 4000
LEFTOVER_S = 2.0
KEPT_VARIABLES = frozenset(
    {"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"}
)
KEPT_PREFIXES = ("LC_", "PYTHON", "OMP_", "MKL_", "NCCL_")
PARENT_VARIABLE = "ENGINE_PARENT_PID"


def engine_environment(source: Mapping[str, str]) -> dict[str, str]:
    """Only what a computation needs: no credential of the service reaches the engine."""
    kept = {
        name: value
        for name, value in source.items()
        if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
    }
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return kept | offline | {PARENT_VARIABLE: str(os.getpid())}


class EngineProcess:
    """One running engine. Create it in the main thread: PDEATHSIG follows the parent's thread."""

    def __init__(self, command: Sequence[str], *, log_path: Path) -> None:
        self._log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=engine_environment(os.environ),
                start_new_session=True,
            )
        self._lines: Queue[bytes | None] = Queue(maxsize=1024)
        self._read_all = False
        self._kill_at: float | None = None
        assert self._process.stdout is not None
        reader = threading.Thread(target=self._pump, args=(self._process.stdout,), daemon=True)
        reader.start()

    @property
    def pid(self) -> int:
        """The leader of the engine's process group."""
        return self._process.pid

    @property
    def finished(self) -> bool:
        """True once the engine is gone and everything it said has been read."""
        return self._read_all and self._has_exited()

    def wake(self) -> None:
        """Let who waits for a line go on with an empty one; another thread may call it."""
        with suppress(Full):
            self._lines.put_nowait(b"")

    def read(self, timeout: float) -> bytes | None:
        """The next line, empty if woken, or None when there is none yet."""
        self._enforce_deadline()
        with suppress(Empty):
            return self._take(timeout)
        return self._last_words() if self._has_exited() else None

    def tell(self, answer: object) -> None:
        """Answer the engine, in a line of JSON; one that has gone does not hear it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(answer).encode() + b"\n")
            self._process.stdin.flush()

    def ask_to_stop(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL when the grace is over; later calls change nothing."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + grace_s
            if not self._has_exited():
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the whole group at once."""
        self._kill_at = time.monotonic()
        self._signal_group(signal.SIGKILL)

    def reap(self) -> int:
        """End whatever is left of the group; the exit status, negative for a signal."""
        self.kill()
        while not self._read_all:
            self._last_words()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        return self._process.wait()

    def log_tail(self) -> str:
        """The last of what the engine wrote to stderr."""
        with self._log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace")

    def _take(self, timeout: float) -> bytes | None:
        line = self._lines.get(timeout=timeout)
        if line is None:
            self._read_all = True
        return line

    def _last_words(self) -> bytes | None:
        """A helper that outlives its engine keeps the pipe open: end it, then wait a little."""
        self._signal_group(signal.SIGKILL)
        try:
            return self._take(LEFTOVER_S)
        except Empty:
            self._read_all = True
            return None

    def _pump(self, stdout: IO[bytes]) -> None:
        with stdout:
            while line := stdout.readline(MAX_LINE_BYTES):
                self._lines.put(line)
        self._lines.put(None)

    def _enforce_deadline(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal_group(signal.SIGKILL)

    def _has_exited(self) -> bool:
        """Looks without reaping, so that the group's number cannot be given to others meanwhile."""
        if self._process.returncode is not None:
            return True
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self.pid, options) is not None

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
