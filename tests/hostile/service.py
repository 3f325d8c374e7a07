"""The running service as the corpus meets it: raw requests, two tenants, real objects."""

import http.client
import json
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from client.sdk import Client
from client.serve import DataFolder
from storage.connect import open_job_store
from storage.interfaces import JobStore, ModelRecord
from tests.hostile.zips import good_zip

Answer = tuple[int, str | None]
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Service:
    """A service in `folder`, the client of its first tenant, and everything that is sent to it."""

    client: Client
    url: str
    key: str
    folder: Path

    @cached_property
    def stranger(self) -> str:
        """A key of another tenant, which may do everything."""
        with closing(self.store()) as store:
            return store.issue_key("globex", ("read", "submit", "admin"))

    @cached_property
    def reader(self) -> str:
        """A key of the first tenant that may only read."""
        with closing(self.store()) as store:
            return store.issue_key("default", ("read",))

    @cached_property
    def file_id(self) -> str:
        return self.upload(good_zip())

    @cached_property
    def foreign_file_id(self) -> str:
        return self.upload(good_zip(), key=self.stranger)

    @cached_property
    def job_id(self) -> str:
        """A job of the first tenant's that has ended."""
        return self.refused_job(self.upload(b"PK\3\4 nothing", name="bad.zip"))["id"]

    @cached_property
    def upload_id(self) -> str:
        announced = {"bytes": 4, "filename": "x", "mime_type": "application/zip"}
        return self.json("POST", "/v1/uploads", announced | {"purpose": "fine-tune"})["id"]

    def store(self) -> JobStore:
        return open_job_store(DataFolder(self.folder).database_url)

    def register(self, model: Path) -> str:
        """Offer a checkpoint folder; returns the model's id."""
        name = f"hostile-{uuid4().hex[:12]}"
        with closing(self.store()) as store:
            store.register_model(ModelRecord(name, "llada_v", "r1", str(model)))
        return name

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> tuple[int, bytes]:
        """Send what may be no request; returns status and body, 0 for a closed connection."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, TIMEOUT_S)
        given = {"Authorization": f"Bearer {self.key if key is None else key}"} | dict(
            headers or {}
        )
        given = {name: value for name, value in given.items() if value != "-"}
        with closing(connection):
            with suppress(BrokenPipeError, ConnectionResetError):  # answered before its end
                connection.request(method, path, body, given)
            try:
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, ConnectionError):
                return 0, b""

    def answer(self, *args: Any, **kwargs: Any) -> Answer:
        """Status and code of an answer."""
        status, body = self.send(*args, **kwargs)
        return status, code_of(body)

    def post(self, path: str, value: Any, **kwargs: Any) -> Answer:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.answer("POST", path, body, {"Content-Type": "application/json"}, **kwargs)

    def json(self, method: str, path: str, value: Any = None, key: str | None = None) -> Any:
        """Send an honest request."""
        body = None if value is None else json.dumps(value).encode()
        status, answer = self.send(
            method, path, body, {"Content-Type": "application/json"}, key=key
        )
        assert status < 300, answer
        return json.loads(answer)

    def form(
        self, content: bytes, name: str = "data.zip", purpose: str = "fine-tune", **kw: Any
    ) -> tuple[int, bytes]:
        """Upload by form."""
        edge = uuid4().hex
        part = f"--{edge}\r\nContent-Disposition: form-data; name="
        file = f'{part}"file"; filename="{name}"\r\n\r\n'
        head = f'{part}"purpose"\r\n\r\n{purpose}\r\n{file}'.encode()
        body = head + content + f"\r\n--{edge}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        return self.send("POST", "/v1/files", body, kind, **kw)

    def upload(self, content: bytes, name: str = "data.zip", key: str | None = None) -> str:
        status, body = self.form(content, name, key=key)
        assert status == 201, body
        return str(json.loads(body)["id"])

    def refused_job(self, file_id: str, **fields: Any) -> Any:
        """Create a job and wait for its end; it is to say itself what is wrong with its file."""
        self.keep_unread(file_id)
        request = {"model": "disp-tiny-llada-v", "training_file": file_id, "validation": "strict"}
        job = self.json("POST", "/v1/defense/jobs", request | fields)
        deadline = time.monotonic() + TIMEOUT_S
        while job["status"] not in ("failed", "succeeded", "cancelled"):
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
            job = self.json("GET", f"/v1/defense/jobs/{job['id']}")
        return job

    def keep_unread(self, file_id: str) -> None:
        """Whatever a reader has found, or may find by now: no job is refused for it."""
        with closing(self.store()) as store, store._engine.begin() as connection:  # type: ignore[attr-defined]
            forget = "UPDATE files SET status = 'processed', lease_owner = NULL WHERE id = ?"
            connection.exec_driver_sql(forget, (file_id,))

    def raw(self, data: bytes, pause_s: float = 0.0, rest: bytes = b"") -> Answer:
        """Write bytes to the socket, wait, write the rest; returns the answer to that."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname or "", parts.port or 80), TIMEOUT_S) as peer:
            peer.sendall(data)
            time.sleep(pause_s)
            if rest:
                peer.sendall(rest)
            answer = http.client.HTTPResponse(peer)
            try:
                answer.begin()
                return answer.status, code_of(answer.read())
            except (http.client.HTTPException, ConnectionError):
                return 0, None


def code_of(body: bytes) -> str | None:
    """The code of a problem document; None for any other body."""
    try:
        found = json.loads(body)["error"]["code"]
        return str(found)
    except (ValueError, TypeError, KeyError):
        return None
