"""A PostgreSQL server: `with postgres_server(folder) as url`."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg

from tests.parts.process import ServerProcess, find_binary, free_ports

USER = "postgres"
FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "shared_buffers": "32MB",
    "fsync": "off",  # for a cut of the power only; a killed server's writes are the system's
}


class PostgresServer:
    """A cluster of its own; data and port survive `stop` and `kill`, until `remove`.

    PostgreSQL refuses to be root, and its user cannot enter root's folders, so the data lies in a
    folder of its own among the temporary ones; only the log is in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        [self._port] = free_ports(1)
        self.url = self.database_url("postgres")
        server = find_binary("postgres", "postgresql", FOLDERS)
        initdb = find_binary("initdb", "postgresql", FOLDERS)
        self._data = Path(tempfile.mkdtemp(prefix="disp-postgres-"))
        user = USER if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(self._data, user, user)
        _initialise(initdb, self._data, user)
        settings = SETTINGS | {"port": str(self._port), "unix_socket_directories": str(self._data)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        process = ServerProcess(
            [server, "-D", str(self._data), *options],
            log=folder / "postgres.log",
            answers=self._answers,
            user=user,
            stop_signal=signal.SIGINT,  # the fast shutdown: it waits for no client
        )
        self.start, self.stop, self.kill = process.start, process.stop, process.kill

    def database_url(self, name: str) -> str:
        """Return how SQLAlchemy names a database of this server."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self._port}/{name}"

    def create_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{uuid4().hex}"
        with psycopg.connect(self._conninfo(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.database_url(name)

    def remove(self) -> None:
        """Stop and delete the data."""
        self.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def _conninfo(self) -> str:
        return f"host=127.0.0.1 port={self._port} user={USER} dbname=postgres connect_timeout=2"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._conninfo()).close()
        except psycopg.OperationalError:
            return False
        return True


def _initialise(initdb: str, data: Path, user: str | None) -> None:
    command = [initdb, "-D", str(data), "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"]
    command.append("--locale=C.UTF-8")
    subprocess.run(command, user=user, group=user, check=True, capture_output=True, cwd="/")


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Yield the URL of an empty database that is there until the block ends."""
    server = PostgresServer(folder)
    try:
        server.start()
        yield server.create_database()
    finally:
        server.remove()
