"""A tenant with many jobs, one of which has ended with very many samples, as a worker leaves it.

The samples' texts and maps are made up, of the length that real ones have; no engine runs.
"""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from schemas.artifacts import ArtifactEntry, Manifest
from schemas.files import FilePurpose
from schemas.jobs import JobStatus, StageName, StepStatus
from schemas.requests import DefenseJobCreate
from storage.ids import new_id
from storage.interfaces import (
    ArtifactStore,
    Claim,
    EventDraft,
    FileDraft,
    JobStore,
    MetricDraft,
    StepUpdate,
)
from storage.keys import artifact_key, manifest_key, upload_key
from workers.publication import result_files
from workers.samples import sample_entries

FLAGGED_EVERY, UNCHANGED_EVERY = 50, 4
STATUSES = ("rewritten",) * 96 + ("kept", "removed", "quarantined", "passed_through")
TEXT = "There is a red circle at the top left and a blue square at the bottom right. " * 4
PREVIEW_SIDE = 96
METRICS, EVENTS = 6_000, 600
AT_ONCE = 500


@dataclass(frozen=True)
class LargeJob:
    """The job, and positions of its samples in the order of the list: most suspicious first."""

    job_id: str
    ranked: list[int]

    def at(self, share: float) -> int:
        """The position of the sample at a share of the way down the list."""
        return self.ranked[int(share * (len(self.ranked) - 1))]


def build(
    jobs: JobStore, artifacts: ArtifactStore, tenant: str, model: str, *, samples: int, others: int
) -> LargeJob:
    """Create `others` queued jobs and the one with so many samples amid them."""
    request = DefenseJobCreate(model=model, training_file=_file(jobs, tenant))
    for _ in range(others // 2):
        jobs.create_job(tenant, request)
    job_id = jobs.create_job(tenant, request).job.id
    for _ in range(others - others // 2):
        jobs.create_job(tenant, request)
    claim = jobs.claim("benchmark", lease_s=3600.0, job_id=job_id)
    assert claim is not None
    jobs.record(claim, status=JobStatus.RUNNING)
    _tell(jobs, claim)
    scores = _scores(samples)
    _publish(jobs, artifacts, claim, scores)
    ranked = sorted(range(samples), key=lambda at: (-scores[at], at))
    return LargeJob(job_id, ranked)


def _file(jobs: JobStore, tenant: str) -> str:
    file_id = new_id("file")
    key = upload_key(tenant, file_id)
    sha256 = "ab" * 32
    draft = FileDraft(file_id, "data.zip", FilePurpose.FINE_TUNE, key, bytes=3, sha256=sha256)
    return jobs.add_file(tenant, draft).id


def _tell(jobs: JobStore, claim: Claim) -> None:
    """A long job's events and curve."""
    for at in range(0, METRICS, AT_ONCE):
        numbers = range(at, at + AT_ONCE)
        metrics = [MetricDraft(StageName.FINE_TUNE, i, {"loss": 2 / (1 + i)}) for i in numbers]
        events = [EventDraft(f"{i} steps are done") for i in numbers[:: METRICS // EVENTS]]
        jobs.record(claim, metrics=metrics, events=events)
    for status in (StepStatus.RUNNING, StepStatus.SUCCEEDED):
        jobs.record(claim, steps=[StepUpdate(name, status) for name in StageName])


def _scores(samples: int) -> list[float]:
    """Rounded as an engine rounds them, so that some are equal."""
    scores = np.random.default_rng(0).normal(size=samples)
    scores[::FLAGGED_EVERY] += 7
    return [round(float(score), 3) for score in scores]


def _publish(jobs: JobStore, artifacts: ArtifactStore, claim: Claim, scores: list[float]) -> None:
    picture = _picture()
    report = json.dumps(_report(len(scores))).encode()
    made: dict[str, Iterable[bytes]] = {
        "samples.jsonl": _lines(scores, len(picture)),
        "previews.bin": [picture],
        "report.json": [report],
    }
    entries = []
    for name, content in made.items():
        key = artifact_key(claim.tenant, claim.job_id, claim.attempt, name)
        blob = artifacts.put_stream(key, content)
        entries.append(
            ArtifactEntry(name=name, bytes=blob.bytes, sha256=blob.sha256, key=key,
                          media_type="application/octet-stream")
        )  # fmt: skip
    manifest = Manifest(job_id=claim.job_id, attempt=claim.attempt, artifacts=entries)
    key = manifest_key(claim.tenant, claim.job_id, claim.attempt)
    artifacts.create(key, manifest.model_dump_json().encode())
    jobs.index_samples(claim, sample_entries(artifacts, manifest))
    told = {name: _report(len(scores))[name] for name in ("evaluation", "samples", "verdict")}
    jobs.succeed(claim, key, told, result_files(manifest))


def _lines(scores: list[float], preview_bytes: int) -> Iterator[bytes]:
    heat = ["0123456789abcdef"] * 16
    preview = {"offset": 0, "bytes": preview_bytes, "type": "image/png",
               "width": PREVIEW_SIDE, "height": PREVIEW_SIDE}  # fmt: skip
    for at, score in enumerate(scores):
        status = STATUSES[at % len(STATUSES)]
        line = {"id": f"train-{at:07d}", "status": status, "score": score,
                "flagged": at % FLAGGED_EVERY == 0, "reasons": [], "heat": heat,
                "preview": preview}  # fmt: skip
        if status == "rewritten":
            line |= {"changed": at % UNCHANGED_EVERY != 0, "question": "What is there?",
                     "original": [TEXT], "purified": [TEXT.replace("red", "green")],
                     "masked_tokens": [4], "visual_tokens": 64}  # fmt: skip
        yield json.dumps(line).encode() + b"\n"


def _picture() -> bytes:
    png = io.BytesIO()
    Image.effect_noise((PREVIEW_SIDE, PREVIEW_SIDE), 40).save(png, "PNG")
    return png.getvalue()


def _report(samples: int) -> dict[str, object]:
    rate = {"rate": 0.5, "successes": 50, "scored": 100, "failed": 0, "ci95": [0.4, 0.6]}
    rates = dict.fromkeys(
        ("asr_with_trigger", "asr_without_trigger", "clean_performance", "token_agreement"), rate
    )
    detectors = {"first_step_kl": {"p_value": 1e-9, "telling": True}}
    return {
        "evaluation": {"before": rates, "after": rates, "relative_clean_performance": 1.0},
        "samples": {"total": samples, "rewritten": samples, "passed_through": 0, "quarantined": 0},
        "quarantined": [{"id": f"s{at}", "reason": "it cannot be decoded"} for at in range(1000)],
        "stages": [{"name": str(name), "seconds": 1.0, "reused": False} for name in StageName],
        "settings": {"method": "disp"}, "seeds": {"run": 0}, "versions": {}, "hashes": {},
        "content_sha256": "ab" * 32,
        "verdict": {
            "poisoned": True, "p_value": 1e-9, "alpha": 0.01, "threshold": 4.0,
            "flagged": samples // FLAGGED_EVERY, "scored": samples, "detectors": detectors,
            "target": None, "trigger": None, "recovered_asr": None,
        },
    }  # fmt: skip
