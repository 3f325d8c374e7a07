"""OpenStack Swift with its own S3 API: `with swift_server(folder) as s3`.

By hand: `python -m tests.parts.swift FOLDER` serves until it is stopped and prints the settings.
One process for each of Swift's four servers, one device, one replica; the folder's file system
must know extended attributes.
"""

import argparse
import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import boto3
from botocore.config import Config

from tests.parts.process import ServerProcess, free_ports, missing

ACCESS_KEY, SECRET_KEY, REGION = "test:tester", "testing", "us-east-1"
NODES = ("account", "container", "object")
PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo "
    "versioned_writes symlink proxy-server"
)
FILTERS = PIPELINE.split()[:-1]
SWIFT_CONF = """[swift-hash]
swift_hash_path_prefix = disp
swift_hash_path_suffix = disp
[storage-policy:0]
name = only
default = yes
"""


@dataclass(frozen=True)
class S3:
    """How to reach an S3 service, and one bucket of it."""

    endpoint: str
    bucket: str
    access_key_id: str = ACCESS_KEY
    secret_access_key: str = SECRET_KEY
    region: str = REGION

    @property
    def url(self) -> str:
        """Return the bucket as `DISP_ARTIFACTS_URL` names it."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the settings of a gateway or worker that stores its bytes here."""
        return {
            "DISP_ARTIFACTS_URL": self.url,
            "DISP_S3_ENDPOINT": self.endpoint,
            "DISP_S3_REGION": self.region,
            "DISP_S3_ACCESS_KEY_ID": self.access_key_id,
            "DISP_S3_SECRET_ACCESS_KEY": self.secret_access_key,
        }

    def client(self) -> Any:
        """Return an independent S3 client."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )


class SwiftServer:
    """Four processes; data and ports survive `stop` and `kill`."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("swift") is None:
            missing("swift is not installed: pip install '.[test]'")
        self._folder = folder.resolve()
        names = ("proxy", *NODES)
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._configure()
        self._servers = [self._server(name) for name in names]

    @property
    def endpoint(self) -> str:
        """Return the URL that S3 clients are given."""
        return f"http://127.0.0.1:{self._ports['proxy']}"

    def start(self) -> None:
        """Return when all four answer."""
        for server in self._servers:
            server.launch()
        for server in self._servers:
            server.wait()

    def stop(self) -> None:
        """End all four."""
        for server in self._servers:
            server.stop()

    def kill(self) -> None:
        """End all four at once."""
        for server in self._servers:
            server.kill()

    def create_bucket(self, name: str = "disp-artifacts") -> S3:
        """Create a bucket and return how to reach it."""
        s3 = S3(self.endpoint, name)
        s3.client().create_bucket(Bucket=name)
        return s3

    def _configure(self) -> None:
        (self._folder / "devices" / "disk").mkdir(parents=True, exist_ok=True)
        (self._folder / "swift.conf").write_text(SWIFT_CONF)
        for name, port in self._ports.items():
            text = _proxy_conf() if name == "proxy" else _node_conf(name)
            (self._folder / f"{name}.conf").write_text(self._default(port) + text)
        rings = [f"{name}:{self._ports[name]}" for name in NODES]
        command = [sys.executable, "-m", "tests.parts.swift_node", "rings", str(self._folder)]
        subprocess.run([*command, *rings], check=True)

    def _default(self, port: int) -> str:
        return (
            f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {getuser()}\n"
            f"swift_dir = {self._folder}\ndevices = {self._folder}/devices\nmount_check = false\n"
            "log_level = ERROR\n"
        )

    def _server(self, name: str) -> ServerProcess:
        command = [sys.executable, "-m", "tests.parts.swift_node", "serve", str(self._folder), name]
        url = f"http://127.0.0.1:{self._ports[name]}/healthcheck"
        log = self._folder / f"{name}.log"
        return ServerProcess(command, log=log, answers=lambda: _answers(url))


def _proxy_conf() -> str:
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in FILTERS)
    filters = filters.replace(
        "[filter:tempauth]\n",
        f"[filter:tempauth]\nuser_{ACCESS_KEY.replace(':', '_')} = {SECRET_KEY} .admin\n",
    ).replace("[filter:s3api]\n", f"[filter:s3api]\ns3_acl = false\nlocation = {REGION}\n")
    app = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
    return f"[pipeline:main]\npipeline = {PIPELINE}\n{filters}{app}"


def _node_conf(name: str) -> str:
    return (
        f"[pipeline:main]\npipeline = healthcheck {name}-server\n"
        "[filter:healthcheck]\nuse = egg:swift#healthcheck\n"
        f"[app:{name}-server]\nuse = egg:swift#{name}\n"
    )


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5.0):
            return True
    except HTTPError:
        return False
    except (URLError, OSError):
        return False


@contextmanager
def swift_server(folder: Path) -> Iterator[S3]:
    """Yield a bucket of a Swift that is there until the block ends."""
    server = SwiftServer(folder)
    try:
        server.start()
        yield server.create_bucket()
    finally:
        server.stop()


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    with swift_server(parser.parse_args().folder) as s3:
        for name, value in s3.environment.items():
            print(f"export {name}={value}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
