"""Large files in parts, several at a time; the call after a killed one sends what is missing.

What is needed to go on is kept in a small file until the upload is complete, named by the service
and by the dataset's path, length and time of change: a dataset that was changed is another one.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

from pydantic import BaseModel

from client.errors import DispError, NotFound, Refused
from schemas.files import File, FilePurpose
from schemas.uploads import MAX_PART, MAX_PARTS, PartUrls, Upload

Shape = TypeVar("Shape", bound=BaseModel)

LARGE = 16 << 20
PART = 16 << 20
PARALLEL = 4
CHUNK = 1 << 20
ADDRESSES = 16


class FileChanged(DispError):
    """The file was changed while it was uploaded, or an earlier part of it was: submit it again."""


class Service(Protocol):
    """What an upload needs of the client."""

    def ask(self, shape: type[Shape], method: str, path: str, body: object = None) -> Shape:
        """Send one small request, patiently."""
        ...

    def put_part(
        self, url_of: Callable[[], str], body: Callable[[], Iterator[bytes]], length: int
    ) -> None:
        """Send bytes to the gateway or to the artifact store, patiently."""
        ...


@dataclass(frozen=True)
class Source:
    """The file to send, as it was when the upload began."""

    path: Path
    purpose: FilePurpose
    bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path, purpose: FilePurpose) -> "Source":
        """Look at a file."""
        found = path.stat()
        return cls(path.resolve(), purpose, found.st_size, found.st_mtime_ns)

    def state_file(self, folder: Path, service_url: str) -> Path:
        """Return where an upload of this file to this service is remembered."""
        name = f"{service_url}\n{self.path}\n{self.purpose}\n{self.bytes}\n{self.changed_ns}"
        return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def upload_in_parts(service: Service, source: Source, state: Path, part_size: int) -> File:
    """Send what the service lacks of a file, and have it made a file there."""
    upload = _begin_or_resume(service, source, state, part_size)
    if upload.file is None:
        upload = _send(service, source, upload, state)
    state.unlink(missing_ok=True)
    if upload.file is None:
        raise FileChanged(str(FileChanged.__doc__))
    return upload.file


def _send(service: Service, source: Source, upload: Upload, state: Path) -> Upload:
    held = {part.number for part in upload.parts}
    count = -(-source.bytes // upload.part_size)
    missing = [number for number in range(1, count + 1) if number not in held]
    addresses = Addresses(service, upload.id, missing)
    with ThreadPoolExecutor(PARALLEL + 1) as pool:
        digest = pool.submit(_sha256, source.path)
        sent = [
            pool.submit(_send_part, service, source, upload, number, addresses)
            for number in missing
        ]
        try:
            for part in sent:
                part.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        body = {"sha256": digest.result()}
    try:
        return service.ask(Upload, "POST", f"/v1/uploads/{upload.id}/complete", body)
    except Refused:
        state.unlink(missing_ok=True)
        raise


def _begin_or_resume(service: Service, source: Source, state: Path, part_size: int) -> Upload:
    with suppress(FileNotFoundError, ValueError, KeyError, NotFound):
        upload_id = str(json.loads(state.read_text())["upload_id"])
        upload = service.ask(Upload, "GET", f"/v1/uploads/{upload_id}")
        if upload.status == "pending" or upload.file is not None:
            return upload
    size = max(part_size, -(-source.bytes // MAX_PARTS))
    body = {
        "bytes": source.bytes,
        "filename": source.path.name,
        "mime_type": "application/octet-stream",
        "purpose": source.purpose.value,
        "part_size": min(size, MAX_PART),
    }
    upload = service.ask(Upload, "POST", "/v1/uploads", body)
    _remember(state, upload.id)
    return upload


class Addresses:
    """Where the parts of an upload are to be sent: asked for in batches, each good for one try.

    A try that failed gets a new one, since those of an artifact store expire.
    """

    def __init__(self, service: Service, upload_id: str, numbers: Sequence[int]) -> None:
        self._service, self._numbers = service, list(numbers)
        self._path = f"/v1/uploads/{upload_id}/part_urls"
        self._known: dict[int, str] = {}
        self._lock = Lock()

    def take(self, number: int) -> str:
        """Return one of a part's, and never the same again."""
        with self._lock:
            if number not in self._known:
                at = self._numbers.index(number)
                body = {"numbers": self._numbers[at : at + ADDRESSES]}
                found = self._service.ask(PartUrls, "POST", self._path, body)
                self._known |= {part.number: part.url for part in found.data}
            return self._known.pop(number)


def _send_part(
    service: Service, source: Source, upload: Upload, number: int, addresses: Addresses
) -> None:
    start = (number - 1) * upload.part_size
    length = min(upload.part_size, source.bytes - start)
    service.put_part(
        lambda: addresses.take(number), lambda: _slice(source.path, start, length), length
    )


def _slice(path: Path, start: int, length: int) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while length:
            chunk = file.read(min(CHUNK, length))
            if not chunk:
                raise FileChanged(str(FileChanged.__doc__))
            length -= len(chunk)
            yield chunk


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remember(state: Path, upload_id: str) -> None:
    state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = state.with_suffix(".part")
    part.write_text(json.dumps({"upload_id": upload_id}))
    os.replace(part, state)
