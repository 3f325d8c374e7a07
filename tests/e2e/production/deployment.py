"""PostgreSQL, Redis, Swift, gateways and Celery workers, each a process with a restart policy.

The commands are those of the containers. Every worker has a disk of its own, as on a machine of
its own; leases are shorter than the defaults, so that a death costs seconds.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

from client.prepare import issue_key
from tests.parts.postgres import PostgresServer
from tests.parts.process import ServerProcess, free_ports
from tests.parts.redis import RedisServer
from tests.parts.swift import S3, SwiftServer

TENANT = "acme"
RESTART_S = 1.0
RECONCILE_EVERY_S = 20.0
SETTINGS = {
    "DISP_LEASE_S": "15",
    "DISP_HEARTBEAT_S": "3",
    "DISP_RECONCILE_S": "2",
    "DISP_MAX_LOSSES": "20",  # somebody who kills is likelier here than a job that does
    "DISP_ENGINE_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


class Member:
    """One process that is started again, at the earliest `pause_s` after its last start."""

    def __init__(self, process: ServerProcess, pause_s: float = RESTART_S) -> None:
        self.process = process
        self._pause_s = pause_s
        self._started_at = float("-inf")

    def keep_alive(self) -> None:
        """Start it if it does not run and its pause is over."""
        if not self.process.running and time.monotonic() - self._started_at >= self._pause_s:
            self._started_at = time.monotonic()
            self.process.launch()


class Deployment:
    """Use it from one thread: the kernel ends its processes with the thread that started them."""

    def __init__(self, folder: Path, *, workers: int, gateways: int) -> None:
        self.folder = folder.resolve()
        self.database = PostgresServer(self.folder / "postgres")
        self.broker = RedisServer(self.folder / "redis")
        self.store = SwiftServer(self.folder / "swift")
        self._ports = free_ports(gateways)
        self._workers = workers
        self.members: Mapping[str, Sequence[Member]] = {}

    @property
    def urls(self) -> Sequence[str]:
        """One for each gateway."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    def start(self) -> None:
        """Return when every gateway is ready."""
        for part in (self.database, self.broker, self.store):
            part.start()
        self.s3: S3 = self.store.create_bucket()
        self.database_url = self.database.create_database()
        self.api_key = issue_key(self.database_url, TENANT, ("read", "submit"))
        self.members = {
            "gateway": [self._gateway(number) for number in range(len(self._ports))],
            "worker": [self._worker(number) for number in range(self._workers)],
            "reader": [self._reader()],
            "reconciler": [self._reconciler()],
        }
        self.keep_alive()
        for gateway in self.members["gateway"]:
            gateway.process.wait()

    def keep_alive(self) -> None:
        """Start again what has ended; call it often."""
        for member in (member for kind in self.members.values() for member in kind):
            member.keep_alive()

    def pids(self, kind: str) -> Sequence[int]:
        """The processes of one kind that run at the moment."""
        running = (member.process for member in self.members[kind] if member.process.running)
        return [process.pid for process in running if process.pid is not None]

    def stop(self) -> None:
        """End everything and forget the database."""
        for member in (member for kind in self.members.values() for member in kind):
            member.process.kill()
        self.store.kill()
        self.broker.kill()
        self.database.remove()

    def _gateway(self, number: int) -> Member:
        port = self._ports[number]
        command = ["uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
        url = f"http://127.0.0.1:{port}/readyz"
        return Member(self._process(f"gateway-{number}", command, url))

    def _worker(self, number: int) -> Member:
        return Member(self._process(f"worker-{number}", ["client.cli", "worker"]))

    def _reader(self) -> Member:
        return Member(self._process("reader", ["client.cli", "worker", "--queue", "disp.cpu"]))

    def _reconciler(self) -> Member:
        """As a timer would run it."""
        process = self._process("reconciler", ["client.cli", "reconcile"])
        return Member(process, RECONCILE_EVERY_S)

    def _process(self, name: str, module: Sequence[str], url: str | None = None) -> ServerProcess:
        environment = {"DISP_DATABASE_URL": self.database_url, "DISP_BROKER_URL": self.broker.url}
        environment |= SETTINGS | self.s3.environment
        environment |= {"DISP_WORK_DIR": str(self.folder / name / "work")}
        return ServerProcess(
            [sys.executable, "-m", *module],
            log=self.folder / f"{name}.log",
            answers=lambda: url is None or _answers(url),
            environment=os.environ | environment,
        )


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5.0):
            return True
    except OSError:
        return False
