"""`disp serve`: gateway and runner as two processes, on SQLite and a folder, started again when
they die.

Everything lies in one data folder: the database, the artifacts, the runner's work, the logs, the
first API key and `serve.json`, which tells clients the URL.
"""

import base64
import fcntl
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from client.children import Child
from client.config import KEY_FILE, SERVE_FILE
from client.errors import DispError

WATCH_S = 0.1
RUNNER_GRACE_S = 90.0
GATEWAY_GRACE_S = 10.0
MAX_LOSSES = "20"
SIGNING_KEY = "DISP_SIGNING_KEY"


class AlreadyServed(DispError):
    """Another `disp serve` uses this data folder: stop it or choose another with --data."""


class CannotListen(DispError):
    """The service cannot listen at this address: choose another with --host and --port."""


@dataclass(frozen=True)
class DataFolder:
    """What lies where."""

    root: Path

    @property
    def database_url(self) -> str:
        """The job store."""
        from sqlalchemy import URL

        url = URL.create("sqlite", database=str(self.root / "disp.db"))
        return url.render_as_string(hide_password=False)

    @property
    def environment(self) -> dict[str, str]:
        """What gateway and runner are told; a broker of another installation is not theirs.

        Somebody who kills processes here by hand is likelier than a job that kills its workers.
        """
        inherited = {k: v for k, v in os.environ.items() if k != "DISP_BROKER_URL"}
        return {"DISP_MAX_LOSSES": MAX_LOSSES, **inherited} | {
            "DISP_DATABASE_URL": self.database_url,
            "DISP_ARTIFACTS_URL": f"file://{self.root / 'artifacts'}",
            "DISP_WORK_DIR": str(self.root / "work"),
        }

    @property
    def gateway_environment(self) -> dict[str, str]:
        """The gateway alone signs: with this installation's own key, unless it is given another."""
        given = self.environment
        if SIGNING_KEY in given or f"{SIGNING_KEY}_FILE" in given:
            return given
        return given | {f"{SIGNING_KEY}_FILE": str(self.signing_key)}

    @property
    def signing_key(self) -> Path:
        """By which reports are signed."""
        return self.root / "signing.key"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.root / "logs"

    def sweep(self) -> None:
        """Remove what killed processes have left half written; call it while none runs."""
        from storage.artifacts import STAGING

        staged = (self.root / "artifacts" / STAGING).glob("*")
        for path in (*staged, *(self.root / "work").glob("*/inputs/.*.part")):
            path.unlink(missing_ok=True)


def serve(data: Path, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT; call it in the main thread of a process without others."""
    folder = DataFolder(data.resolve())
    folder.logs.mkdir(parents=True, exist_ok=True)
    stop = _stop_on_signals()
    with _sole_server(folder.root), _listen(host, port) as listener:
        folder.sweep()
        prepare(folder, announce)
        url = f"http://{host}:{listener.getsockname()[1]}"
        announce(f"serving {url}, pages at {url}/ui, data and logs in {folder.root}")
        _keep_running(folder, listener, url, stop, announce)


def prepare(folder: DataFolder, announce: Callable[[str], None]) -> None:
    """Bring the database to this version, and see that the folder's key opens it."""
    from client.prepare import TENANT, prepare_database

    store = prepare_database(folder.database_url)
    path = folder.root / KEY_FILE
    known = path.read_text().strip() if path.exists() else ""
    if store.authenticate(known) is None:
        key = store.issue_key(TENANT)
        _write_private(path, key + "\n")
        announce(f"API key (kept in {path}): {key}")
    store.close()
    if not folder.signing_key.exists():
        _write_private(folder.signing_key, base64.b64encode(os.urandom(32)).decode() + "\n")


def _keep_running(
    folder: DataFolder,
    listener: socket.socket,
    url: str,
    stop: threading.Event,
    announce: Callable[[str], None],
) -> None:
    descriptor = listener.fileno()
    gateway = _child(
        folder,
        "gateway",
        ["client.gateway", str(descriptor)],
        folder.gateway_environment,
        announce,
        pass_fds=[descriptor],
    )
    runner = _child(folder, "runner", ["workers.runner"], folder.environment, announce)
    try:
        while not stop.wait(WATCH_S):
            if any([gateway.keep_alive(), runner.keep_alive()]):
                _write_serve_file(folder, url, gateway, runner)
        announce("stopping: the job at hand is saved (Ctrl-C ends everything at once)")
    finally:
        runner.stop(RUNNER_GRACE_S)
        gateway.stop(GATEWAY_GRACE_S)
        (folder.root / SERVE_FILE).unlink(missing_ok=True)


def _child(
    folder: DataFolder,
    name: str,
    module: Sequence[str],
    environment: Mapping[str, str],
    announce: Callable[[str], None],
    pass_fds: Sequence[int] = (),
) -> Child:
    log_path = folder.logs / f"{name}.log"
    return Child(
        [sys.executable, "-m", *module],
        environment=environment,
        log_path=log_path,
        pass_fds=pass_fds,
        on_death=lambda status: announce(
            f"the {name} ended with status {status} and is started again, see {log_path}"
        ),
    )


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
    """All of it or nothing, and for the owner's eyes only."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotListen(f"{CannotListen.__doc__} [{host}:{port}: {reason}]") from error


@contextmanager
def _sole_server(root: Path) -> Iterator[None]:
    with (root / "serve.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyServed(f"{AlreadyServed.__doc__} [{root}]") from error
        yield


def _stop_on_signals() -> threading.Event:
    """The event is set by the first signal; a second Ctrl-C ends the process, children and all."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop
