"""From a URL to a store; the only place that knows which backends there are."""

from pathlib import Path

from storage.artifacts import LocalArtifactStore, MemoryArtifactStore
from storage.interfaces import ArtifactStore, JobStore
from storage.settings import S3Settings
from storage.sql.store import SqlJobStore


def open_job_store(url: str) -> JobStore:
    """Open `sqlite:///PATH` or `postgresql+psycopg://…`; `storage.migrate.upgrade` comes first."""
    return SqlJobStore(url)


def open_artifact_store(url: str, s3: S3Settings | None = None) -> ArtifactStore:
    """Open `file:///DIR`, `memory://` or `s3://bucket/prefix`.

    Without `s3` the settings of a bucket come from the environment.
    """
    if url.startswith("s3://"):
        from storage.s3 import S3ArtifactStore

        return S3ArtifactStore(url, s3 or S3Settings())
    if url.startswith("file://"):
        return LocalArtifactStore(Path(url.removeprefix("file://")))
    if url.startswith("memory:"):
        return MemoryArtifactStore()
    raise ValueError(f"not file:///DIR, memory:// or s3://bucket/prefix: {url}")
