"""From a URL to a store; the only place that knows which backends there are."""

from storage.artifacts import ObjectArtifactStore
from storage.interfaces import ArtifactStore, JobStore
from storage.sql.store import SqlJobStore


def open_job_store(url: str) -> JobStore:
    """Open `sqlite:///PATH` or `postgresql+psycopg://…`; `storage.migrate.upgrade` comes first."""
    return SqlJobStore(url)


def open_artifact_store(url: str) -> ArtifactStore:
    """Open `file:///DIR`, `memory://` or `s3://bucket/prefix`."""
    return ObjectArtifactStore(url)
