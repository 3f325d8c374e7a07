"""What is left when the dust has settled: rows by SQL, bytes by an S3 client that is not ours."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.artifacts import Manifest
from schemas.jobs import TERMINAL, Job, JobStatus
from storage.interfaces import JobStore
from tests.e2e.production.customers import Ledger
from tests.e2e.production.deployment import TENANT
from tests.parts.swift import S3
from workers.publication import REPORT


@dataclass(frozen=True)
class Findings:
    """Ids of jobs of which a promise was broken, and how many attempts all of them took."""

    jobs: int
    attempts: int
    cancelled: int
    lost: list[str]
    finished_twice: list[str]
    inconsistent: list[str]


def audit(store: JobStore, s3: S3, ledger: Ledger) -> Findings:
    """Look at every job that there is, and for every job that there should be."""
    client = s3.client()
    jobs = {job.id: job for job in _jobs(store)}
    known = set(jobs) | set(ledger.created)
    return Findings(
        jobs=len(jobs),
        attempts=sum(job.attempt for job in jobs.values()),
        cancelled=sum(job.status is JobStatus.CANCELLED for job in jobs.values()),
        lost=[job_id for job_id in sorted(known) if not _kept(jobs.get(job_id), ledger)],
        finished_twice=[job.id for job in jobs.values() if _endings(store, job) > 1],
        inconsistent=[job.id for job in jobs.values() if not _agrees(store, client, s3, job)],
    )


def _jobs(store: JobStore) -> Iterator[Job]:
    after, more = None, True
    while more:
        page = store.list_jobs(TENANT, limit=100, after=after)
        yield from page.data
        after, more = page.last_id, page.has_more


def _kept(job: Job | None, ledger: Ledger) -> bool:
    """Whether a job is there, known to its owner, and ended as its owner wished."""
    if job is None or job.id not in ledger.created:
        return False
    wished = job.status is JobStatus.CANCELLED and job.id in ledger.cancelled
    return job.status is JobStatus.SUCCEEDED or wished


def _endings(store: JobStore, job: Job) -> int:
    """How often the job's history says that it ended, or its results were given to its owner."""
    history, after, more = [], None, True
    while more:
        page = store.list_events(TENANT, job.id, after=after)
        history += page.data
        after, more = page.last_id, page.has_more
    told = [event for event in history if event.type == "status"]
    ends = sum(event.data["status"] in TERMINAL for event in told)
    names = [store.get_file(TENANT, file_id).filename for file_id in job.result_files]
    return max([ends, *(names.count(name) for name in names)])


def _agrees(store: JobStore, client: Any, s3: S3, job: Job) -> bool:
    """Whether the manifest, the bytes that it names and the job's row tell the same story."""
    key = store.published_manifest(TENANT, job.id)
    if job.status is not JobStatus.SUCCEEDED:
        return key is None and not job.result_files
    assert key is not None
    manifest = Manifest.model_validate_json(_bytes(client, s3, key))
    data = {entry.name: _bytes(client, s3, entry.key) for entry in manifest.artifacts}
    whole = all(
        (entry.bytes, entry.sha256)
        == (len(data[entry.name]), hashlib.sha256(data[entry.name]).hexdigest())
        for entry in manifest.artifacts
    )
    files = [store.get_file(TENANT, file_id) for file_id in job.result_files]
    rows = {file.filename: file.sha256 for file in files}
    listed = {entry.name: entry.sha256 for entry in manifest.artifacts}
    told = (job.result or {}).get("content_sha256")
    return whole and rows == listed and json.loads(data[REPORT])["content_sha256"] == told


def _bytes(client: Any, s3: S3, key: str) -> bytes:
    return bytes(client.get_object(Bucket=s3.bucket, Key=key)["Body"].read())
