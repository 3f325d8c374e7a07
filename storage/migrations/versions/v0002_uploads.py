"""Uploads that arrive in parts."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Kind = sa.types.TypeEngine[Any]
Name, Number = sa.String(255), sa.BigInteger()
Time: sa.Double[float] = sa.Double()


def _needed(name: str, kind: Kind, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **options)


def upgrade() -> None:
    """Create the tables of uploads and parts."""
    op.create_table(
        "uploads",
        _needed("id", Name, primary_key=True),
        _needed("tenant", Name),
        _needed("status", Name),
        _needed("filename", Name),
        _needed("purpose", Name),
        _needed("bytes", Number),
        _needed("part_size", Number),
        sa.Column("sha256", Name, nullable=True),
        _needed("file_id", Name),
        _needed("key", sa.Text()),
        _needed("handle", sa.Text()),
        _needed("created_at", Time),
        _needed("expires_at", Time),
        sa.Column("swept_at", Time, nullable=True),
    )
    op.create_index("uploads_by_status", "uploads", ["status", "expires_at"])
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", Name, sa.ForeignKey("uploads.id"), primary_key=True),
        _needed("number", Number, primary_key=True, autoincrement=False),
        _needed("id", Name, unique=True),
        _needed("bytes", Number),
        sa.Column("sha256", Name, nullable=True),
        _needed("tag", Name),
        _needed("created_at", Time),
    )
