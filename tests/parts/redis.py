"""A Redis server: `with redis_server(folder) as url`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.parts.process import ServerProcess, find_binary, free_ports


class RedisServer:
    """Keeps nothing on disk, as a broker that may be lost; `kill` and `start` give an empty one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        [port] = free_ports(1)
        self.url = f"redis://127.0.0.1:{port}/0"
        binary = find_binary("redis-server", "redis-server")
        options = {
            "--port": str(port),
            "--bind": "127.0.0.1",
            "--dir": str(folder),
            "--save": "",
            "--appendonly": "no",
            "--maxmemory-policy": "noeviction",
        }
        command = [binary, *(word for option in options.items() for word in option)]
        process = ServerProcess(command, log=folder / "redis.log", answers=self._answers)
        self.start, self.stop, self.kill = process.start, process.stop, process.kill

    def _answers(self) -> bool:
        with Redis.from_url(self.url, socket_timeout=2.0) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Yield the URL of a Redis that is there until the block ends."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
