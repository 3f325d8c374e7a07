"""Parts of a job's stages that several workers share."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Name, Number = sa.String(255), sa.BigInteger()


def upgrade() -> None:
    """Create the table of shards."""
    op.create_table(
        "shards",
        sa.Column("job_id", Name, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("folder", Name, primary_key=True),
        sa.Column("first", Number, primary_key=True, autoincrement=False),
        sa.Column("last", Number, nullable=False),
        sa.Column("status", Name, nullable=False),
        sa.Column("owner", Name, nullable=True),
        sa.Column("attempt", Number, nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
    )
    op.create_index("shards_by_status", "shards", ["status", "job_id"])
