"""A server process that is ready when it answers, and that ends with the thread that started it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

READY_S = 60.0
STOP_S = 30.0
POLL_S = 0.05


class NotReady(Exception):
    """A server has ended or does not answer; the end of its log follows."""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; they are tried all at once, so they differ."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in sockets]


def find_binary(name: str, package: str, folders: Sequence[Path] = ()) -> str:
    """Return a program's path; without it the test fails under CI and is skipped elsewhere."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        missing(f"{name} is not installed: apt-get install {package}")
    return str(found)


def missing(reason: str) -> None:
    """Fail under CI, skip elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class ServerProcess:
    """One command; `answers` tells whether it serves."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        answers: Callable[[], bool],
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._command = ["setpriv", "--pdeathsig", "KILL", *_as_user(user), *command]
        self._log, self._answers, self._environment = log, answers, environment
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while it is not running."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when it answers, or raise `NotReady`."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start without waiting."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )

    def wait(self) -> None:
        """Return when it answers, or raise `NotReady`."""
        deadline = time.monotonic() + READY_S
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                raise NotReady(self._log.read_text(errors="replace")[-3000:])
            if time.monotonic() > deadline:
                self.kill()
                raise NotReady(self._log.read_text(errors="replace")[-3000:])
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End it in peace; one that does not end is killed."""
        if self._process is None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once, and all that it has started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def _as_user(user: str | None) -> list[str]:
    return [] if user is None else ["--reuid", user, "--regid", user, "--init-groups", "--"]
