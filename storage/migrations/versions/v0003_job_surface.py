"""Pause, retry, usage and metadata of jobs; results as files; keys that end."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Text, Number, Time = sa.String(255), sa.BigInteger, sa.Double


def upgrade() -> None:
    """Add columns, and a table that makes metadata searchable."""
    op.add_column("jobs", sa.Column("retry_of", Text, nullable=True))
    op.add_column("jobs", sa.Column("claimed_at", Time(), nullable=True))
    op.add_column(
        "jobs", sa.Column("worker_seconds", Time(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("files", sa.Column("job_id", Text, nullable=True))
    op.create_index("files_by_job", "files", ["job_id"])
    op.add_column("api_keys", sa.Column("expires_at", Time(), nullable=True))
    op.create_index("api_keys_by_tenant", "api_keys", ["tenant", "id"])
    _create_metadata()


def _create_metadata() -> None:
    table = op.create_table(
        "job_metadata",
        sa.Column("job_id", Text, sa.ForeignKey("jobs.id"), primary_key=True, nullable=False),
        sa.Column("key", Text, primary_key=True, nullable=False),
        sa.Column("value", sa.String(512), nullable=False),
    )
    rows = [
        {"job_id": job_id, "key": key, "value": value}
        for job_id, request in op.get_bind().execute(sa.text("SELECT id, request FROM jobs"))
        for key, value in _metadata(request).items()
        if "\0" not in key + value
    ]
    if rows:
        op.bulk_insert(table, rows)


def _metadata(request: str | dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the metadata of a request that the driver may or may not have parsed."""
    document = json.loads(request) if isinstance(request, str) else request
    found: dict[str, str] = document.get("metadata", {})
    return found
