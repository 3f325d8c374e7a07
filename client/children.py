"""Child processes that are started again when they die, and die when their parent does."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

BACKOFF_S = (0.1, 10.0)
SETTLED_S = 30.0
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


def dies_with(parent: int) -> Callable[[], None]:
    """A `preexec_fn`: the kernel ends the child when the thread that started it ends.

    Only for parents without other threads: code between fork and exec must find no lock held.
    """

    def tie() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return tie


class Child:
    """One command that is to run for as long as its parent does."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        pass_fds: Sequence[int] = (),
        on_death: Callable[[int], None] = lambda status: None,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._log_path = log_path
        self._pass_fds = tuple(pass_fds)
        self._on_death = on_death
        self._backoff_s = BACKOFF_S[0]
        self._start_at = 0.0
        self._started_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while it is not running."""
        return self._process.pid if self._process else None

    def keep_alive(self) -> bool:
        """Start the child if it does not run and its pause is over; tells whether it did."""
        now = time.monotonic()
        if self._process is not None and (status := self._process.poll()) is not None:
            self._note_death(now)
            self._on_death(status)
        if self._process is not None or now < self._start_at:
            return False
        self._start()
        return True

    def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL when the grace is over."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _note_death(self, now: float) -> None:
        self._process = None
        if now - self._started_at > SETTLED_S:
            self._backoff_s = BACKOFF_S[0]
        self._start_at = now + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_S[1])

    def _start(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self._pass_fds,
                start_new_session=True,
                preexec_fn=dies_with(os.getpid()),
            )
        self._started_at = time.monotonic()
