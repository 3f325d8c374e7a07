"""`disp serve`: gateway and runner as two processes, on SQLite and a folder, started again when
they die.

Everything lies in one data folder: the database, the artifacts, the runner's work, the logs, the
first API key and `serve.json`, which tells clients the URL.
"""

import fcntl
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from client.children import Child
from client.config import KEY_FILE, SERVE_FILE
from client.errors import DispError

TENANT = "default"
WATCH_S = 0.1
RUNNER_GRACE_S = 90.0
GATEWAY_GRACE_S = 10.0


class AlreadyServed(DispError):
    """Another `disp serve` uses this data folder: stop it or choose another with --data."""


@dataclass(frozen=True)
class DataFolder:
    """What lies where."""

    root: Path

    @property
    def database_url(self) -> str:
        """The job store."""
        return f"sqlite:///{self.root / 'disp.db'}"

    @property
    def environment(self) -> dict[str, str]:
        """What gateway and runner are told; a broker of another installation is not theirs."""
        inherited = {k: v for k, v in os.environ.items() if k != "DISP_BROKER_URL"}
        return inherited | {
            "DISP_DATABASE_URL": self.database_url,
            "DISP_ARTIFACTS_URL": f"file://{self.root / 'artifacts'}",
            "DISP_WORK_DIR": str(self.root / "work"),
        }

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.root / "logs"


def serve(data: Path, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT; call it in the main thread of a process without others."""
    folder = DataFolder(data.resolve())
    folder.logs.mkdir(parents=True, exist_ok=True)
    stop = _stop_on_signals()
    with _sole_server(folder.root), socket.create_server((host, port), backlog=512) as listener:
        prepare(folder, announce)
        url = f"http://{host}:{listener.getsockname()[1]}"
        announce(f"serving {url}, data and logs in {folder.root}")
        _keep_running(folder, listener, url, stop)


def prepare(folder: DataFolder, announce: Callable[[str], None]) -> None:
    """Bring the database to this version, register the built-in models, make the first key."""
    from disp_engine.registry import builtin_models
    from storage.connect import open_job_store
    from storage.interfaces import ModelRecord
    from storage.migrate import upgrade

    upgrade(folder.database_url)
    store = open_job_store(folder.database_url)
    for card in builtin_models():
        fields = ("id", "family", "revision", "defaults")
        store.register_model(ModelRecord(path=str(card["path"]), **{k: card[k] for k in fields}))
    key_path = folder.root / KEY_FILE
    if not key_path.exists():
        key = store.issue_key(TENANT)
        _write_private(key_path, key)
        announce(f"API key (kept in {key_path}): {key}")
    store.close()


def _keep_running(
    folder: DataFolder, listener: socket.socket, url: str, stop: threading.Event
) -> None:
    gateway = Child(
        [sys.executable, "-m", "client.gateway", str(listener.fileno())],
        environment=folder.environment,
        log_path=folder.logs / "gateway.log",
        pass_fds=[listener.fileno()],
    )
    runner = Child(
        [sys.executable, "-m", "workers.runner"],
        environment=folder.environment,
        log_path=folder.logs / "runner.log",
    )
    try:
        while not stop.wait(WATCH_S):
            if any([gateway.keep_alive(), runner.keep_alive()]):
                _write_serve_file(folder, url, gateway, runner)
    finally:
        runner.stop(RUNNER_GRACE_S)
        gateway.stop(GATEWAY_GRACE_S)
        (folder.root / SERVE_FILE).unlink(missing_ok=True)


def _write_serve_file(folder: DataFolder, url: str, gateway: Child, runner: Child) -> None:
    content = {
        "url": url,
        "pid": os.getpid(),
        "gateway_pid": gateway.pid,
        "runner_pid": runner.pid,
    }
    part = folder.root / f".{SERVE_FILE}.part"
    part.write_text(json.dumps(content, indent=2))
    os.replace(part, folder.root / SERVE_FILE)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


@contextmanager
def _sole_server(root: Path) -> Iterator[None]:
    with (root / "serve.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyServed(f"{AlreadyServed.__doc__} [{root}]") from error
        yield


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop
