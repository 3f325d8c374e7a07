"""The service as a Python object.

A call that meets no service, or one that is away, is repeated for `patience_s` from its first
failure on, so a gateway that restarts goes unnoticed. Whatever creates a job or a file carries an
Idempotency-Key. A large upload goes in parts and resumes, also after the client was killed.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import BaseModel, ValidationError

from client.config import state_folder
from client.errors import IntegrityError, NotOurService, Unavailable, service_error
from client.stream import follow
from client.uploads import LARGE, PART, Source, upload_in_parts
from schemas.artifacts import ArtifactEntry, Manifest
from schemas.errors import ErrorCode, Problem
from schemas.files import File, FilePurpose, FileValidation
from schemas.jobs import Checkpoint, Event, Job, JobDeleted, JobStatus, Metric
from schemas.models import Model
from schemas.reports import Report
from schemas.requests import DefenseJobCreate
from schemas.samples import Sample, SampleSaliency, SampleStatus, Verdict
from schemas.signatures import ReportSignature, SigningKey
from schemas.wire import Page

Shape = TypeVar("Shape", bound=BaseModel)
Answer = TypeVar("Answer")
Query = dict[str, str | int | float | None]

POLL_S = (0.2, 2.0)
RETRY_S = (0.1, 3.0)
AWAY = frozenset({502, 503, 504})
PASSING = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.IDEMPOTENCY_IN_FLIGHT, ErrorCode.PART_BUSY})
FOREIGN = frozenset({404, 405, 501})
HOPELESS = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.DecodingError)
UPLOAD_TIMEOUT = httpx2.Timeout(30.0, read=600.0, write=120.0)


class Client:
    """One service, one API key."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        patience_s: float = 60.0,
        transport: httpx2.BaseTransport | None = None,
        state: Path | None = None,
    ) -> None:
        self._patience_s = patience_s
        self._state = state or state_folder()
        self._elsewhere = httpx2.Client(timeout=UPLOAD_TIMEOUT, trust_env=False)
        try:
            self._http = httpx2.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {api_key}"},
                timeout=30.0,
                transport=transport,
                trust_env=False,
            )
        except httpx2.InvalidURL as error:
            raise Unavailable(f"{Unavailable.__doc__} [{error}]") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()
        self._elsewhere.close()

    def upload(
        self,
        path: Path,
        purpose: FilePurpose = FilePurpose.FINE_TUNE,
        *,
        part_size: int = PART,
    ) -> File:
        """Send a dataset, or a projector to start from, without holding it in memory.

        A large one that broke off goes on with what is missing; a small one is sent again.
        """
        source = Source.of(path, purpose)
        if source.bytes > LARGE:
            state = source.state_file(self._state / "uploads", str(self._http.base_url))
            return upload_in_parts(self, source, state, part_size)

        headers = {"Idempotency-Key": uuid4().hex}

        def send() -> httpx2.Response:
            with path.open("rb") as file:
                return self._http.post(
                    "/v1/files",
                    headers=headers,
                    data={"purpose": purpose.value},
                    files={"file": (path.name, file, "application/octet-stream")},
                    timeout=UPLOAD_TIMEOUT,
                )

        return _parse(File, self._answered(send))

    def ask(self, shape: type[Shape], method: str, path: str, body: object = None) -> Shape:
        """Send one small request, patiently."""
        return _parse(
            shape,
            self._answered(
                lambda: self._http.request(method, path, json=body, timeout=UPLOAD_TIMEOUT)
            ),
        )

    def put_part(
        self, url_of: Callable[[], str], body: Callable[[], Iterator[bytes]], length: int
    ) -> None:
        """Send bytes to the gateway or to the artifact store, patiently."""

        def put() -> None:
            url = url_of()
            http = self._http if url.startswith("/") else self._elsewhere
            headers = {"Content-Length": str(length)}
            response = http.put(url, content=body(), headers=headers, timeout=UPLOAD_TIMEOUT)
            _raise_for(response)

        self._patiently(put)

    def files(
        self, *, limit: int = 20, after: str | None = None, before: str | None = None
    ) -> Page[File]:
        """One page of uploaded files, newest first."""
        return _parse(Page[File], self._get("/v1/files", limit=limit, after=after, before=before))

    def file(self, file_id: str) -> File:
        """One file; its status tells whether it was read, and can be used."""
        return _parse(File, self._get(f"/v1/files/{file_id}"))

    def validation(self, file_id: str) -> FileValidation:
        """What was found in a dataset when it was last read; refused while nobody has read it."""
        return _parse(FileValidation, self._get(f"/v1/files/{file_id}/validation"))

    def models(self) -> Sequence[Model]:
        """All models that a job may name."""
        return _parse(Page[Model], self._get("/v1/models")).data

    def create_job(self, request: DefenseJobCreate, *, idempotency_key: str | None = None) -> Job:
        """Create a job; the key makes a repeated call answer with the same job."""
        headers = {
            "Idempotency-Key": idempotency_key or uuid4().hex,
            "Content-Type": "application/json",
        }
        body = request.model_dump_json(exclude_none=True)
        return _parse(
            Job,
            self._answered(
                lambda: self._http.post("/v1/defense/jobs", content=body, headers=headers)
            ),
        )

    def job(self, job_id: str) -> Job:
        """The job as it is now."""
        return _parse(Job, self._get(f"/v1/defense/jobs/{job_id}"))

    def jobs(
        self,
        *,
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
        status: JobStatus | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[Job]:
        """One page of jobs, newest first, with all the labels of `metadata`."""
        labels = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        query: Query = {"limit": limit, "after": after, "before": before}
        query |= {"status": status, "model": model}
        return _parse(Page[Job], self._get("/v1/defense/jobs", **query, **labels))

    def cancel(self, job_id: str) -> Job:
        """Ask the job to stop; a finished one stays as it is."""
        return _parse(Job, self._post(f"/v1/defense/jobs/{job_id}/cancel"))

    def pause(self, job_id: str) -> Job:
        """Put the job aside; one at work saves what it has done first."""
        return _parse(Job, self._post(f"/v1/defense/jobs/{job_id}/pause"))

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on."""
        return _parse(Job, self._post(f"/v1/defense/jobs/{job_id}/resume"))

    def retry(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        """Create a job with the request of one that has failed or was cancelled."""
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return _parse(Job, self._post(f"/v1/defense/jobs/{job_id}/retry", headers))

    def delete(self, job_id: str) -> JobDeleted:
        """Delete a job that has ended, with everything that it published."""
        path = f"/v1/defense/jobs/{job_id}"
        return _parse(JobDeleted, self._answered(lambda: self._http.delete(path)))

    def follow(self, job_id: str, *, after_seq: int = 0) -> Iterator[Event | Job]:
        """Yield events behind `after_seq`, and the job whenever it changes, until it has ended.

        They come as a stream; where none can be had, by polling.
        """
        path = f"/v1/defense/jobs/{job_id}/events/stream"
        return follow(self._http, path, after_seq, _raise_for, lambda seq: self._poll(job_id, seq))

    def iter_events(self, job_id: str, *, after_seq: int = 0) -> Iterator[Event]:
        """Yield events from the first (or the one behind `after_seq`) until the job has ended."""
        found = self.follow(job_id, after_seq=after_seq)
        return (item for item in found if isinstance(item, Event))

    def _poll(self, job_id: str, after_seq: int) -> Iterator[Event | Job]:
        """Do what a stream would do, in steps."""
        shown: Job | None = None
        after: str | None = None
        pause = POLL_S[0]
        while True:
            job = self.job(job_id)  # asked first: no event comes after its end
            more, seen = True, after
            while more:
                page = self.event_page(job_id, after=after)
                yield from (event for event in page.data if event.seq > after_seq)
                after, more = page.last_id or after, page.has_more
            if job != shown:
                shown = job
                yield job
            if job.status.terminal:
                return
            pause = POLL_S[0] if after != seen else min(2 * pause, POLL_S[1])
            time.sleep(pause)

    def event_page(self, job_id: str, *, after: str | None = None, limit: int = 100) -> Page[Event]:
        """One page of events, oldest first."""
        path = f"/v1/defense/jobs/{job_id}/events"
        return _parse(Page[Event], self._get(path, after=after, limit=limit))

    def metrics(self, job_id: str, *, after: str | None = None) -> Page[Metric]:
        """One page of training metrics."""
        path = f"/v1/defense/jobs/{job_id}/metrics"
        return _parse(Page[Metric], self._get(path, after=after))

    def wait(self, job_id: str, *, seen: Callable[[Job], None] = lambda job: None) -> Job:
        """Poll until the job has ended; `seen` gets every state on the way."""
        while True:
            job = self.job(job_id)
            seen(job)
            if job.status.terminal:
                return job
            time.sleep(POLL_S[0] if job.status is JobStatus.QUEUED else 2 * POLL_S[0])

    def samples(
        self,
        job_id: str,
        *,
        status: SampleStatus | None = None,
        verdict: Verdict | None = None,
        min_score: float | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Sample]:
        """One page of samples; while `has_more`, pass `last_id` as `after` to get the next."""
        path = f"/v1/defense/jobs/{job_id}/samples"
        query: Query = {"status": status, "verdict": verdict, "min_score": min_score}
        query |= {"after": after, "limit": limit}
        return _parse(Page[Sample], self._get(path, **query))

    def sample(self, job_id: str, sample_id: str) -> Sample:
        """One sample by its id in the dataset."""
        path = f"/v1/defense/jobs/{job_id}/samples/{quote(sample_id, safe='')}"
        return _parse(Sample, self._get(path))

    def saliency(self, job_id: str, sample_id: str) -> SampleSaliency:
        """Where a sample's first picture is salient."""
        path = f"/v1/defense/jobs/{job_id}/samples/{quote(sample_id, safe='')}/saliency.json"
        return _parse(SampleSaliency, self._get(path))

    def saliency_picture(self, job_id: str, sample_id: str) -> bytes:
        """The same as a PNG in shades of grey."""
        path = f"/v1/defense/jobs/{job_id}/samples/{quote(sample_id, safe='')}/saliency.png"
        return self._get(path).content

    def checkpoints(self, job_id: str) -> Page[Checkpoint]:
        """The projectors that the job has published."""
        return _parse(Page[Checkpoint], self._get(f"/v1/defense/jobs/{job_id}/checkpoints"))

    def artifacts(self, job_id: str) -> Manifest:
        """The manifest of a succeeded job."""
        return _parse(Manifest, self._get(f"/v1/defense/jobs/{job_id}/artifacts"))

    def report(self, job_id: str) -> Report:
        """The report of a succeeded job."""
        return _parse(Report, self._get(f"/v1/defense/jobs/{job_id}/report"))

    def report_page(self, job_id: str) -> str:
        """The report of a succeeded job as one HTML page."""
        path = f"/v1/defense/jobs/{job_id}/report"
        headers = {"Accept": "text/html"}
        return self._answered(lambda: self._http.get(path, headers=headers)).text

    def report_bytes(self, job_id: str) -> bytes:
        """The report as it was published, byte for byte: this is what is signed."""
        return self._get(f"/v1/defense/jobs/{job_id}/report").content

    def report_signature(self, job_id: str) -> ReportSignature:
        """The deployment's signature of the report."""
        path = f"/v1/defense/jobs/{job_id}/report/signature"
        return _parse(ReportSignature, self._get(path))

    def signing_key(self) -> SigningKey:
        """The public key by which this deployment signs."""
        return _parse(SigningKey, self._get("/v1/signing_key"))

    def fetch(self, job_id: str, folder: Path) -> list[Path]:
        """Download every artifact into `folder`, going on where an earlier call was cut off."""
        entries = self.artifacts(job_id).artifacts
        folder.mkdir(parents=True, exist_ok=True)
        return [self.fetch_artifact(job_id, entry, folder / entry.name) for entry in entries]

    def fetch_artifact(self, job_id: str, entry: ArtifactEntry, path: Path) -> Path:
        """Download one artifact; `path` appears only when its sha256 is right."""
        if path.exists() and _sha256(path) == entry.sha256:
            return path
        part = path.with_name(f".{path.name}.{entry.sha256[:12]}.part")
        url = f"/v1/defense/jobs/{job_id}/artifacts/{entry.name}"
        self._patiently(lambda: self._fill(part, url, entry), lambda: _size(part))
        if _sha256(part) != entry.sha256:
            part.unlink()
            raise IntegrityError(f"{IntegrityError.__doc__} [{entry.name}]")
        os.replace(part, path)
        return path

    def _fill(self, part: Path, url: str, entry: ArtifactEntry) -> None:
        """Append what is missing; what a broken connection has left is kept for the next call."""
        with part.open("ab") as file:
            if file.tell() > entry.bytes:
                file.truncate(0)
            if (start := file.tell()) == entry.bytes:
                return
            headers = {"If-Range": f'"sha256-{entry.sha256}"', "Accept-Encoding": "identity"}
            headers |= {"Range": f"bytes={start}-"} if start else {}
            with self._http.stream("GET", url, headers=headers) as response:
                if response.status_code != 303:
                    _append(response, file)
                    return
                elsewhere = response.headers["Location"]
            del headers["If-Range"]  # the store has ETags of its own; the sha256 is checked anyway
            with self._elsewhere.stream("GET", elsewhere, headers=headers) as response:
                if response.status_code == 403:
                    raise _Away("the URL has expired")
                _append(response, file)

    def _get(self, path: str, **query: str | int | float | None) -> httpx2.Response:
        given = {name: value for name, value in query.items() if value is not None}
        return self._answered(lambda: self._http.get(path, params=given))

    def _post(self, path: str, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        return self._answered(lambda: self._http.post(path, headers=headers))

    def _answered(self, send: Callable[[], httpx2.Response]) -> httpx2.Response:
        def call() -> httpx2.Response:
            response = send()
            _raise_for(response)
            return response

        return self._patiently(call)

    def _patiently(
        self, call: Callable[[], Answer], progress: Callable[[], int] = lambda: 0
    ) -> Answer:
        """Repeat `call`; patience begins with a failure, and anew with one after progress."""
        deadline, pause = math.inf, RETRY_S[0]
        while True:
            before = progress()
            try:
                return call()
            except (httpx2.RequestError, _Away) as error:
                now = time.monotonic()
                if deadline == math.inf or progress() > before:
                    deadline, pause = now + self._patience_s, RETRY_S[0]
                if isinstance(error, HOPELESS) or now + pause > deadline:
                    raise Unavailable(f"{Unavailable.__doc__} [{error}]") from error
            time.sleep(pause)
            pause = min(2 * pause, RETRY_S[1])


class _Away(Exception):
    """The gateway answered that it, or what it depends on, is away for the moment."""


def _raise_for(response: httpx2.Response) -> None:
    if response.status_code in AWAY:
        raise _Away(f"status {response.status_code}")
    if response.status_code >= 400:
        problem = _problem(response)
        if problem is not None and problem.error.code in PASSING:
            raise _Away(problem.error.message)
        if problem is None and response.status_code in FOREIGN:
            raise NotOurService(f"{NotOurService.__doc__} [{response.request.url}]")
        raise service_error(response.status_code, problem)


def _append(response: httpx2.Response, file: BinaryIO) -> None:
    if response.status_code >= 400:
        response.read()
        _raise_for(response)
    if response.status_code != 206:
        file.truncate(0)
    for chunk in response.iter_bytes():
        file.write(chunk)


def _problem(response: httpx2.Response) -> Problem | None:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None


def _parse(shape: type[Shape], response: httpx2.Response) -> Shape:
    try:
        return shape.model_validate_json(response.content)
    except ValidationError as error:
        raise NotOurService(f"{NotOurService.__doc__} [{response.request.url}]") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
