"""Samples of ended jobs, for lists that are paged in SQL; the step of detection."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

Name, Number = sa.String(255), sa.BigInteger()
DETECT_AT = 5
FINISHED = "(SELECT id FROM jobs WHERE status IN ('succeeded', 'failed', 'cancelled'))"


def upgrade() -> None:
    """Create the table, and give every job the new step: jobs that have ended skipped it."""
    op.create_table(
        "samples",
        sa.Column("job_id", Name, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("position", Number, primary_key=True, autoincrement=False),
        sa.Column("back", Number, nullable=False),
        sa.Column("sample_id", sa.Text(), nullable=False),
        sa.Column("status", Name, nullable=False),
        sa.Column("verdict", Name, nullable=True),
        sa.Column("flagged", sa.Boolean(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("start", Number, nullable=False),
        sa.Column("bytes", Number, nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("says", sa.Text(), nullable=False),
    )
    for name, columns in {
        "samples_by_score": [],
        "samples_by_flag": ["flagged"],
        "samples_by_status": ["status"],
        "samples_by_verdict": ["verdict"],
    }.items():
        op.create_index(name, "samples", ["job_id", *columns, "score", "back"])
    _add_step()


def _add_step() -> None:
    op.execute(f"UPDATE steps SET position = position + 1 WHERE position >= {DETECT_AT}")
    for status, which in (("skipped", f"IN {FINISHED}"), ("pending", f"NOT IN {FINISHED}")):
        op.execute(
            "INSERT INTO steps (job_id, name, position, status, done, reused, attempt, furthest,"
            f" completed) SELECT id, 'detect', {DETECT_AT}, '{status}', 0, false, 0, 0, false"
            f" FROM jobs WHERE id {which}"
        )
