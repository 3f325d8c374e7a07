"""A service on this machine as its processes: a gateway and runners over SQLite and a folder."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from client.children import dies_with
from client.prepare import issue_key
from client.sdk import Client

MIB = 1 << 20
POLL_S = 0.02
PATIENCE_S = 120.0


class Gateway:
    """A gateway on a socket that outlives it; `database` None is SQLite in the folder."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        database = database or f"sqlite:///{folder}/disp.db"
        self.api_key = issue_key(database, "default", ("read", "submit"))
        self.environment = os.environ | {
            "DISP_DATABASE_URL": database,
            "DISP_ARTIFACTS_URL": f"file://{folder}/artifacts",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._idle = 0

    def start(self) -> None:
        """Start, and note what it needs when it has answered once."""
        descriptor = self._listener.fileno()
        with (self._folder / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "client.gateway", str(descriptor)],
                env=self.environment,
                pass_fds=[descriptor],
                stdout=log,
                stderr=log,
                preexec_fn=dies_with(os.getpid()),
            )
        with self.client() as client:
            client.models()
        self._idle = self._memory("VmRSS")

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def grown(self) -> float:
        """Return the peak since `start` above idle, in MiB."""
        return (self._memory("VmHWM") - self._idle) / MIB

    def processor_s(self) -> float:
        """Return the processor time that it has had, in seconds."""
        assert self._process is not None
        *_, fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def client(self) -> Client:
        """Return a client that waits for a gateway that is away."""
        return Client(self.url, self.api_key, patience_s=PATIENCE_S)

    def close(self) -> None:
        """End it."""
        self.kill()
        self._listener.close()

    @contextmanager
    def runner(self, name: str, threads: int) -> Iterator[None]:
        """Have a runner with a disk of its own, from when it looks for work on."""
        work = self._folder / name
        environment = self.environment | {
            "DISP_WORK_DIR": str(work),
            "DISP_ENGINE_THREADS": str(threads),
        }
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers.runner"],
                env=environment,
                stdout=log,
                stderr=log,
                preexec_fn=dies_with(os.getpid()),
            )
        try:
            while not (work / "runner.lock").exists():
                if process.poll() is not None:
                    raise RuntimeError(f"the runner has ended, see {log.name}")
                time.sleep(POLL_S)
            yield
        finally:
            process.kill()
            process.wait()

    def _memory(self, name: str) -> int:
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"the gateway has ended, see {self._folder}/gateway.log")


@contextmanager
def running_gateway(folder: Path, database: str | None = None) -> Iterator[Gateway]:
    """Have a gateway without runners, over SQLite unless a database is named."""
    gateway = Gateway(folder, database)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.close()


@contextmanager
def running_host(folder: Path, *, runners: int, threads: int) -> Iterator[Client]:
    """Have a gateway with so many runners, and a client of it."""
    with ExitStack() as stack:
        gateway = stack.enter_context(running_gateway(folder))
        for number in range(runners):
            stack.enter_context(gateway.runner(f"runner-{number}", threads))
        yield stack.enter_context(gateway.client())
