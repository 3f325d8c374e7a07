"""A large upload over loopback: `python -m benchmarks.upload --megabytes 2048 --json FILE`.

Measured in one run, since a machine is never the same twice: loopback TCP, SHA-256 and a durable
write of the same bytes, each alone; an upload in peace; an upload whose client is killed after a
third and whose gateway is killed after two thirds. Promised: the killed upload resumes and is
whole, the gateway's memory grows by at most 32 MiB, and the upload in peace is at least 0.6 times
as fast as the slowest of the three. The time of an upload in peace is the client's own, from the
call to its answer: the start of a Python process is no part of it.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.host import MIB, PATIENCE_S, POLL_S, Gateway, running_gateway
from client.children import dies_with
from client.sdk import Client
from client.uploads import PART
from schemas.uploads import MIN_PART, Upload

GROWTH = 32 * MIB
SHARE = 0.6


@dataclass(frozen=True)
class Baseline:
    """What this machine can do with these bytes, in MiB per second."""

    loopback: float
    sha256: float
    write: float

    @property
    def slowest(self) -> float:
        """The one that bounds an upload."""
        return min(self.loopback, self.sha256, self.write)


@dataclass(frozen=True)
class Measured:
    """One upload; `grown` is the gateway's peak memory above what it needed idle, in MiB."""

    rate: float
    grown: float
    whole: bool


@dataclass(frozen=True)
class Result:
    """Everything; `held_…` count the parts that the gateway held around the two deaths."""

    megabytes: int
    baseline: Baseline
    peaceful: Measured
    disturbed: Measured
    held_when_client_died: int
    held_when_gateway_died: int
    held_after_gateway_died: int
    parts: int

    @property
    def share(self) -> float:
        """How fast an upload in peace is, compared to the slowest baseline."""
        return self.peaceful.rate / self.baseline.slowest

    @property
    def resumed(self) -> bool:
        """Whether no death lost a part that was held."""
        held = (0, self.held_when_client_died, self.held_when_gateway_died, self.parts)
        lost = self.held_after_gateway_died < self.held_when_gateway_died
        return all(a < b for a, b in pairwise(held)) and not lost

    @property
    def holds(self) -> bool:
        """Whether all that was promised is so."""
        uploads = (self.peaceful, self.disturbed)
        small = all(upload.grown * MIB <= GROWTH for upload in uploads)
        whole = all(upload.whole for upload in uploads)
        return small and whole and self.resumed and self.share >= SHARE


class Uploading:
    """A client that uploads in a process of its own, so that it can be killed."""

    def __init__(self, gateway: Gateway, path: Path, state: Path) -> None:
        self._gateway, self._path, self._state = gateway, path, state
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, or go on where the last one was killed."""
        command = [sys.executable, "-m", "benchmarks.upload", "--client", self._gateway.url]
        environment = os.environ | {
            "DISP_API_KEY": self._gateway.api_key,
            "XDG_STATE_HOME": str(self._state),
        }
        self._process = subprocess.Popen(
            [*command, str(self._path)],
            env=environment,
            stdout=subprocess.PIPE,
            preexec_fn=dies_with(os.getpid()),
        )

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def finish(self) -> float:
        """Wait for its success and return how many seconds it says that it has needed."""
        assert self._process is not None
        told, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise RuntimeError("the client has failed")
        return float(told)

    def wait_for_parts(self, client: Client, count: int) -> int:
        """Wait until this many parts are held and return how many there are."""
        while True:
            held = self.held(client)
            if held >= count:
                return held
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError("the client has ended too early to be disturbed")
            time.sleep(POLL_S)

    def held(self, client: Client) -> int:
        """Return how many parts the gateway holds."""
        for path in (self._state / "disp" / "uploads").glob("*.json"):
            upload_id = json.loads(path.read_text())["upload_id"]
            return len(client.ask(Upload, "GET", f"/v1/uploads/{upload_id}").parts)
        return 0


def run(folder: Path, megabytes: int) -> Result:
    """Measure everything below `folder`, which has room for three such files."""
    path = folder / "large.zip"
    write_archive(path, megabytes)
    baseline = measure_baseline(path, folder / "write")
    with running_gateway(folder / "peaceful") as gateway:
        peaceful = _peaceful(gateway, path, folder / "state-1")
    shutil.rmtree(folder / "peaceful")
    with running_gateway(folder / "disturbed") as gateway:
        return _disturbed(gateway, path, folder / "state-2", megabytes, baseline, peaceful)


def measure_baseline(path: Path, scratch: Path) -> Baseline:
    """Send, hash and write the bytes of `path`, one after the other."""
    size = path.stat().st_size / MIB
    return Baseline(
        loopback=size / _seconds(lambda: _send_over_loopback(path)),
        sha256=size / _seconds(lambda: _sha256(path)),
        write=size / _seconds(lambda: _write(path, scratch)),
    )


def write_archive(path: Path, megabytes: int) -> None:
    """Write a zip of this many MiB of noise."""
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open("noise.png", "w", force_zip64=True) as member,
    ):
        for _ in range(megabytes):
            member.write(os.urandom(MIB))


def _peaceful(gateway: Gateway, path: Path, state: Path) -> Measured:
    upload = Uploading(gateway, path, state)
    upload.start()
    return _measured(gateway, path, upload.finish())


def _disturbed(
    gateway: Gateway,
    path: Path,
    state: Path,
    megabytes: int,
    baseline: Baseline,
    peaceful: Measured,
) -> Result:
    upload = Uploading(gateway, path, state)
    with gateway.client() as client:
        began = time.monotonic()
        upload.start()
        upload.wait_for_parts(client, 1)
        parts = _part_count(path)
        upload.wait_for_parts(client, parts // 3)
        upload.kill()
        first = upload.held(client)
        upload.start()
        second = upload.wait_for_parts(client, max(2 * parts // 3, first + 1))
        gateway.kill()
        gateway.start()
        after = upload.held(client)
        upload.finish()
        seconds = time.monotonic() - began
    measured = _measured(gateway, path, seconds)
    return Result(megabytes, baseline, peaceful, measured, first, second, after, parts)


def _measured(gateway: Gateway, path: Path, seconds: float) -> Measured:
    with gateway.client() as client:
        [file] = client.files().data
    rate = path.stat().st_size / MIB / seconds
    return Measured(rate, gateway.grown(), file.sha256 == _sha256(path))


def _upload(url: str, path: Path) -> float:
    """Be the client."""
    with Client(url, os.environ["DISP_API_KEY"], patience_s=PATIENCE_S) as client:
        client.models()
        return _seconds(lambda: client.upload(path, part_size=part_size(path)))


def part_size(path: Path) -> int:
    """Return the SDK's own, or the smallest for a file that would have too few to kill between."""
    return PART if path.stat().st_size > 16 * PART else MIN_PART


def _part_count(path: Path) -> int:
    return -(-path.stat().st_size // part_size(path))


def _send_over_loopback(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = threading.Thread(target=_receive, args=[listener])
        reader.start()
        with socket.create_connection(listener.getsockname()) as sender, path.open("rb") as file:
            while chunk := file.read(MIB):
                sender.sendall(chunk)
        reader.join()


def _receive(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    buffer = bytearray(MIB)
    with connection:
        while connection.recv_into(buffer):
            pass


def _write(path: Path, scratch: Path) -> None:
    with path.open("rb") as source, scratch.open("wb") as target:
        while chunk := source.read(MIB):
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    scratch.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def main() -> None:
    """Print the result as JSON; status 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="where there is room [a temporary one]")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--client", nargs=2, metavar=("URL", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        url, path = options.client
        print(_upload(url, Path(path)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = run(Path(folder), options.megabytes)
    shown = asdict(result) | {"share": result.share, "holds": result.holds}
    text = json.dumps(shown, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text)
    sys.exit(0 if result.holds else 1)


if __name__ == "__main__":
    main()
