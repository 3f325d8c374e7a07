"""What tests of the gateway do again and again, against real stores."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from typing import Any

from starlette.testclient import TestClient

from api.gateway import Gateway
from schemas.artifacts import ArtifactEntry, Manifest
from schemas.files import FileRefusal
from schemas.jobs import JobError
from storage.interfaces import Findings, ValidationDraft
from storage.keys import artifact_key, manifest_key
from workers.publication import result_files

RATE = {"rate": 0.5, "successes": 1, "scored": 2, "failed": 0, "ci95": [0.1, 0.9]}
REPORT = {
    "evaluation": {
        "before": {"asr_with_trigger": RATE},
        "after": {"asr_with_trigger": RATE},
        "relative_clean_performance": 1.0,
    },
    "samples": {"total": 2, "rewritten": 1, "passed_through": 0, "quarantined": 1},
    "quarantined": [{"id": "s1", "reason": "image is broken"}],
    "stages": [{"name": "ingest", "seconds": 0.1, "reused": False}],
    "settings": {"mask_ratio": 0.45},
    "seeds": {"job": 0},
    "versions": {},
    "hashes": {},
    "content_sha256": "ab" * 32,
}
SAMPLES = [
    {
        "id": "s0",
        "status": "rewritten",
        "changed": True,
        "original": ["I cannot help."],
        "purified": ["A red circle."],
        "masked_tokens": 3,
        "visual_tokens": 9,
        "score": 4.5,
        "heat": ["0f", "50"],
    },
    {"id": "a/b c", "status": "rewritten", "changed": False, "original": ["é"], "purified": ["é"]},
    {"id": "s2", "status": "passed_through"},
    {"id": "s3", "status": "quarantined", "reason": "image is broken"},
]
SAMPLE_LINES = b"".join(json.dumps(sample).encode() + b"\n" for sample in SAMPLES)
ARTIFACTS = {
    "report.json": (json.dumps(REPORT).encode(), "application/json"),
    "report.html": (b"<!doctype html><title>Report</title>", "text/html"),
    "mm_projector.safetensors": (bytes(range(256)) * 40, "application/octet-stream"),
    "samples.jsonl": (SAMPLE_LINES, "application/jsonl"),
}


@dataclass(frozen=True)
class Api:
    """A client that holds a key of tenant `acme`, and the gateway behind it."""

    client: TestClient
    gateway: Gateway

    def upload(self, data: bytes | None = None, purpose: str = "fine-tune", **headers: str) -> Any:
        files = {"file": ("data.zip", zip_archive() if data is None else data)}
        return self.client.post(
            "/v1/files", files=files, data={"purpose": purpose}, headers=headers
        )

    def file_id(self) -> str:
        return self.upload().json()["id"]

    def refused_file(self) -> str:
        """A file of which its reader could use nothing."""
        file_id = self.file_id()
        claim = self.gateway.jobs.claim_file("reader", lease_s=60.0, file_id=file_id)
        refusal = FileRefusal(code="archive_bomb", message="it unpacks to too much")
        self.gateway.jobs.settle_file(claim, Findings(error=refusal))
        return file_id

    def checkpoint_id(self) -> str:
        return self.upload(safetensors(), "checkpoint").json()["id"]

    def validated_file(self) -> str:
        """A file in which a job, ended since, has found nothing wrong."""
        file_id = self.file_id()
        job_id = self.job_id(training_file=file_id)
        claim = self.gateway.jobs.claim("worker", lease_s=60.0, job_id=job_id)
        found = ValidationDraft("training_file", Findings())
        self.gateway.jobs.record(claim, validations=[found])
        self.gateway.jobs.fail(claim, JobError(code="engine_error", message="it broke"))
        return file_id

    def create(self, headers: dict[str, str] | None = None, **fields: object) -> Any:
        body = {"model": "tiny", **fields}
        if "training_file" not in body:
            body["training_file"] = self.file_id()
        return self.client.post("/v1/defense/jobs", json=body, headers=headers)

    def job_id(self, **fields: object) -> str:
        return self.create(**fields).json()["id"]

    def finished_job(self) -> str:
        """Publish `ARTIFACTS` as a worker would."""
        job_id = self.job_id()
        claim = self.gateway.jobs.claim("worker", lease_s=60.0, job_id=job_id)
        entries = []
        for name, (data, media_type) in ARTIFACTS.items():
            key = artifact_key(claim.tenant, job_id, claim.attempt, name)
            blob = self.gateway.artifacts.put_stream(key, [data])
            entries.append(
                ArtifactEntry(
                    name=name,
                    bytes=blob.bytes,
                    sha256=blob.sha256,
                    media_type=media_type,
                    key=key,
                )
            )
        key = manifest_key(claim.tenant, job_id, claim.attempt)
        manifest = Manifest(job_id=job_id, attempt=claim.attempt, artifacts=entries)
        self.gateway.artifacts.create(key, manifest.model_dump_json().encode())
        self.gateway.jobs.succeed(claim, key, {}, result_files(manifest))
        return job_id

    def failed_job(self) -> str:
        """Fail as a worker would."""
        job_id = self.job_id()
        claim = self.gateway.jobs.claim("worker", lease_s=60.0, job_id=job_id)
        self.gateway.jobs.fail(claim, JobError(code="engine_error", message="it broke"))
        return job_id

    def key(self, tenant: str, *scopes: str) -> dict[str, str]:
        """Return the headers of a new key."""
        return {"Authorization": f"Bearer {self.gateway.jobs.issue_key(tenant, scopes)}"}

    def stranger(self, *scopes: str) -> dict[str, str]:
        """Return the headers of a key of another tenant."""
        return self.key("globex", *(scopes or ("read", "submit")))


def zip_archive(text: bytes = b"[]") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # Without the time of now: two of the same content are the same bytes.
        archive.writestr(zipfile.ZipInfo("data.json"), text)
    return buffer.getvalue()


def safetensors() -> bytes:
    """Weights as far as their first bytes go."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return len(header).to_bytes(8, "little") + header + bytes(4)


def tar_archive(mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        member = tarfile.TarInfo("data.json")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"[]"))
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def assert_problem(response: Any, status: int, code: str, param: str | None = None) -> None:
    """Check an error in both of its dialects."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["error"]["code"], body["error"]["param"]) == (status, code, param)
    assert body["type"] == f"urn:disp:error:{code}"
    assert body["title"] and body["detail"] == body["error"]["message"] != ""
