"""The first schema."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Text, Number, Time = sa.String(255), sa.BigInteger, sa.Double


Kind = sa.types.TypeEngine[Any]


def _needed(name: str, kind: Kind, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **options)


def _optional(name: str, kind: Kind) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _of_job() -> sa.Column[Any]:
    key = sa.ForeignKey("jobs.id")
    return sa.Column("job_id", Text, key, primary_key=True, nullable=False)


def upgrade() -> None:
    """Create all tables."""
    _create_tenants_things()
    _create_jobs()
    _create_history()
    _create_delivery()


def _create_tenants_things() -> None:
    op.create_table(
        "api_keys",
        _needed("id", Text, primary_key=True),
        _needed("tenant", Text),
        _needed("sha256", Text),
        _needed("scopes", sa.JSON()),
        _needed("created_at", Time()),
        _optional("revoked_at", Time()),
    )
    op.create_table(
        "files",
        _needed("id", Text, primary_key=True),
        _needed("tenant", Text),
        _needed("filename", Text),
        _needed("purpose", Text),
        _needed("key", sa.Text()),
        _needed("bytes", Number()),
        _needed("sha256", Text),
        _needed("created_at", Time()),
    )
    op.create_index("files_by_tenant", "files", ["tenant", "id"])
    op.create_table(
        "models",
        _needed("id", Text, primary_key=True),
        _needed("family", Text),
        _needed("revision", Text),
        _needed("path", sa.Text()),
        _needed("defaults", sa.JSON()),
        _needed("created_at", Time()),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        _needed("id", Text, primary_key=True),
        _needed("tenant", Text),
        _needed("status", Text),
        _optional("stage", Text),
        _needed("request", sa.JSON()),
        _needed("model", Text),
        _needed("training_file", Text),
        _optional("triggered_file", Text),
        _optional("clean_file", Text),
        _needed("created_at", Time()),
        _optional("started_at", Time()),
        _optional("finished_at", Time()),
        _needed("attempt", Number()),
        _needed("losses", Number()),
        _optional("lease_owner", Text),
        _optional("lease_until", Time()),
        _optional("manifest_key", sa.Text()),
        _optional("result", sa.JSON()),
        _optional("error", sa.JSON()),
    )
    op.create_index("jobs_by_tenant", "jobs", ["tenant", "id"])
    op.create_index("jobs_by_status", "jobs", ["status", "id"])
    op.create_table(
        "steps",
        _of_job(),
        _needed("name", Text, primary_key=True),
        _needed("position", Number()),
        _needed("status", Text),
        _needed("done", Number()),
        _optional("total", Number()),
        _optional("unit", Text),
        _optional("started_at", Time()),
        _optional("finished_at", Time()),
        _needed("reused", sa.Boolean()),
        _needed("attempt", Number()),
        _needed("furthest", Number()),
        _needed("completed", sa.Boolean()),
    )


def _create_history() -> None:
    op.create_table(
        "events",
        _of_job(),
        _needed("seq", Number(), primary_key=True, autoincrement=False),
        _needed("id", Text, unique=True),
        _needed("created_at", Time()),
        _needed("level", Text),
        _needed("type", Text),
        _needed("message", sa.Text()),
        _needed("data", sa.JSON()),
    )
    op.create_table(
        "metrics",
        _of_job(),
        _needed("seq", Number(), primary_key=True, autoincrement=False),
        _needed("stage", Text),
        _needed("step", Number()),
        _needed("values", sa.JSON()),
        _needed("created_at", Time()),
    )
    op.create_index("metrics_by_step", "metrics", ["job_id", "stage", "step"], unique=True)


def _create_delivery() -> None:
    op.create_table(
        "idempotency_keys",
        _needed("tenant", Text, primary_key=True),
        _needed("key", Text, primary_key=True),
        _needed("body_sha256", Text),
        _needed("response", sa.JSON()),
        _needed("created_at", Time()),
    )
    op.create_table("outbox", _of_job(), _needed("due_at", Time()))
