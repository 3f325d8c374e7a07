"""Artifacts become visible all at once: when the job's row names the manifest that lists them."""

import mimetypes
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.artifacts import ArtifactEntry, Manifest
from schemas.files import FilePurpose
from schemas.reports import Report
from schemas.requests import AskedStage
from storage.errors import AlreadyExists, NotFound
from storage.ids import new_id
from storage.interfaces import ArtifactStore, Claim, FileDraft
from storage.keys import artifact_key, manifest_key
from workers.context import JobContext

REPORT = "report.json"
OF_EVERY_JOB = frozenset({REPORT, "report.html", "samples.jsonl"})
PROJECTOR = "mm_projector.safetensors"
DATASETS = frozenset({"purified_dataset.zip", "purified_dataset.tar"})
MEDIA_TYPES = {
    ".safetensors": "application/octet-stream",
    ".jsonl": "application/jsonl",
    ".zip": "application/zip",
    ".tar": "application/x-tar",
}


class BadOutput(Exception):
    """The engine said that it is done, but its output folder does not hold what it should."""


@dataclass(frozen=True)
class Publication:
    """A manifest, ours or an earlier attempt's, and the digest of its report."""

    key: str
    manifest: Manifest
    result: dict[str, Any]


def adopt(artifacts: ArtifactStore, claim: Claim) -> Publication | None:
    """Return what an earlier attempt has published without living to say so, if one has."""
    for attempt in range(claim.attempt - 1, 0, -1):
        key = manifest_key(claim.tenant, claim.job_id, attempt)
        try:
            manifest = Manifest.model_validate_json(artifacts.get(key))
        except NotFound:
            continue
        return Publication(key, manifest, _result(artifacts, manifest))
    return None


def publish(
    artifacts: ArtifactStore,
    out_dir: Path,
    context: JobContext[Claim],
    stages: Collection[AskedStage],
) -> Publication:
    """Store every artifact, then the manifest; none of these keys is ever another attempt's."""
    claim = context.claim
    _check_output(out_dir, stages)
    entries = []
    for path in sorted(out_dir.iterdir()):
        context.check()
        entries.append(_store(artifacts, claim, path))
    manifest = Manifest(job_id=claim.job_id, attempt=claim.attempt, artifacts=entries)
    context.check()
    key = manifest_key(claim.tenant, claim.job_id, claim.attempt)
    try:
        artifacts.create(key, manifest.model_dump_json(indent=2).encode())
    except AlreadyExists:  # our own, of a try whose answer was lost
        manifest = Manifest.model_validate_json(artifacts.get(key))
    return Publication(key, manifest, _result(artifacts, manifest))


def result_files(manifest: Manifest) -> list[FileDraft]:
    """Return the artifacts as files, so that a client may read them, or train on them, by id."""
    return [
        FileDraft(
            id=new_id("file"),
            filename=entry.name,
            purpose=FilePurpose.RESULTS,
            key=entry.key,
            bytes=entry.bytes,
            sha256=entry.sha256,
        )
        for entry in manifest.artifacts
    ]


def _check_output(out_dir: Path, stages: Collection[AskedStage]) -> None:
    """Refuse an output that lacks what was asked for, or holds what was not."""
    paths = list(out_dir.iterdir())
    names = {path.name for path in paths if path.is_file() and not path.is_symlink()}
    if missing := OF_EVERY_JOB - names:
        raise BadOutput(f"missing: {', '.join(sorted(missing))}")
    purified = len(names & DATASETS) == int("purify" in stages)
    repaired = (PROJECTOR in names) == ("retrain" in stages)
    if not purified or not repaired or len(names) != len(paths):
        raise BadOutput(f"unexpected content: {', '.join(sorted(path.name for path in paths))}")
    try:
        Report.model_validate_json((out_dir / REPORT).read_bytes())
    except ValidationError as error:
        raise BadOutput(f"{REPORT}: {error}") from error


def _store(artifacts: ArtifactStore, claim: Claim, path: Path) -> ArtifactEntry:
    key = artifact_key(claim.tenant, claim.job_id, claim.attempt, path.name)
    blob = artifacts.put_file(key, path)
    guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return ArtifactEntry(
        name=path.name,
        bytes=blob.bytes,
        sha256=blob.sha256,
        media_type=MEDIA_TYPES.get(path.suffix, guessed),
        key=key,
    )


def _result(artifacts: ArtifactStore, manifest: Manifest) -> dict[str, Any]:
    """What the job row says of its report."""
    entry = next(entry for entry in manifest.artifacts if entry.name == REPORT)
    report = Report.model_validate_json(artifacts.get(entry.key))
    return report.model_dump(
        mode="json", include={"evaluation", "samples", "verdict", "content_sha256"}
    )
