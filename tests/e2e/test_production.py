import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.artifacts import ArtifactEntry, Manifest
from schemas.errors import ErrorCode
from schemas.files import FilePurpose
from schemas.jobs import JobError, JobStatus
from schemas.requests import DefenseJobCreate
from storage.connect import open_artifact_store, open_job_store
from storage.ids import new_id
from storage.interfaces import ArtifactStore, EventDraft, FileDraft, JobStore, ModelRecord
from storage.keys import artifact_key, manifest_key
from storage.migrate import upgrade
from storage.settings import S3Settings
from tests.e2e.production.audit import Findings, audit
from tests.e2e.production.chaos import run_chaos
from tests.e2e.production.customers import Ledger
from tests.e2e.production.deployment import TENANT
from tests.parts.swift import S3
from workers.publication import result_files

REPORT = b'{"content_sha256": "of the report"}'


def test_no_death_and_no_outage_loses_doubles_or_changes_a_job(tmp_path: Path) -> None:
    chaos = run_chaos(tmp_path, jobs=4, kills=4, workers=2, s3_away_s=5.0, patience_s=480.0)
    assert chaos.holds, chaos.table()
    assert set(chaos.killed) == {"worker", "engine", "gateway", "supervisor"}
    assert len(chaos.outages) == 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    url = f"sqlite:///{tmp_path}/disp.db"
    upgrade(url)
    store = open_job_store(url)
    store.register_model(ModelRecord(id="tiny", family="llada_v", revision="r1", path="/models/t"))
    yield store
    store.close()


@pytest.fixture
def artifacts(s3: S3) -> ArtifactStore:
    settings = S3Settings(
        endpoint=s3.endpoint,
        region=s3.region,
        access_key_id=s3.access_key_id,
        secret_access_key=s3.secret_access_key,
    )
    return open_artifact_store(s3.url, settings)


def succeeded_job(store: JobStore, artifacts: ArtifactStore) -> str:
    draft = FileDraft(
        id=new_id("file"),
        filename="data.zip",
        purpose=FilePurpose.FINE_TUNE,
        key="data",
        bytes=1,
        sha256="0" * 64,
    )
    store.add_file(TENANT, draft)
    job = store.create_job(TENANT, DefenseJobCreate(model="tiny", training_file=draft.id)).job
    claim = store.claim("worker", lease_s=60.0, job_id=job.id)
    assert claim is not None
    entry = ArtifactEntry(
        name="report.json",
        bytes=len(REPORT),
        sha256=hashlib.sha256(REPORT).hexdigest(),
        media_type="application/json",
        key=artifact_key(TENANT, job.id, 1, "report.json"),
    )
    artifacts.create(entry.key, REPORT)
    manifest = Manifest(job_id=job.id, attempt=1, artifacts=[entry])
    key = manifest_key(TENANT, job.id, 1)
    artifacts.create(key, manifest.model_dump_json().encode())
    store.succeed(claim, key, {"content_sha256": "of the report"}, result_files(manifest))
    return job.id


def test_the_audit_finds_nothing_in_a_job_that_went_well(
    store: JobStore, artifacts: ArtifactStore, s3: S3
) -> None:
    job_id = succeeded_job(store, artifacts)
    found = audit(store, s3, Ledger(created=[job_id]))
    assert found == Findings(
        jobs=1, attempts=1, cancelled=0, lost=[], finished_twice=[], inconsistent=[]
    )


def test_the_audit_finds_a_job_that_is_missing_or_that_nobody_asked_for(
    store: JobStore, artifacts: ArtifactStore, s3: S3
) -> None:
    unasked = succeeded_job(store, artifacts)
    assert audit(store, s3, Ledger(created=["job_missing"])).lost == sorted(
        ["job_missing", unasked]
    )


def test_the_audit_finds_bytes_that_are_not_the_manifests(
    store: JobStore, artifacts: ArtifactStore, s3: S3
) -> None:
    job_id = succeeded_job(store, artifacts)
    key = artifact_key(TENANT, job_id, 1, "report.json")
    artifacts.put_stream(key, [REPORT.replace(b"of the", b"of any")])
    assert audit(store, s3, Ledger(created=[job_id])).inconsistent == [job_id]


def test_the_audit_finds_a_failed_job_and_one_that_was_cancelled_unasked(
    store: JobStore, artifacts: ArtifactStore, s3: S3
) -> None:
    request = DefenseJobCreate(
        model="tiny",
        training_file=store.get_job(TENANT, succeeded_job(store, artifacts)).training_file,
    )
    failed, cancelled = (store.create_job(TENANT, request).job.id for _ in range(2))
    claim = store.claim("worker", lease_s=60.0, job_id=failed)
    assert claim is not None
    store.fail(claim, JobError(code=ErrorCode.ENGINE_ERROR, message="broken"))
    store.request_cancel(TENANT, cancelled)
    created = [job.id for job in store.list_jobs(TENANT).data]
    assert audit(store, s3, Ledger(created=created)).lost == sorted([failed, cancelled])
    wished = Ledger(created=created, cancelled={cancelled})
    assert audit(store, s3, wished).lost == [failed]


def test_the_audit_finds_a_job_that_ended_twice(
    store: JobStore, artifacts: ArtifactStore, s3: S3
) -> None:
    job_id = succeeded_job(store, artifacts)
    other = store.create_job(
        TENANT,
        DefenseJobCreate(model="tiny", training_file=store.get_job(TENANT, job_id).training_file),
    ).job.id
    claim = store.claim("worker", lease_s=60.0, job_id=other)
    assert claim is not None
    ended = EventDraft("job ended", type="status", data={"status": JobStatus.FAILED})
    store.record(claim, events=[ended])
    store.fail(claim, JobError(code=ErrorCode.ENGINE_ERROR, message="broken"))
    assert audit(store, s3, Ledger(created=[job_id, other])).finished_twice == [other]
