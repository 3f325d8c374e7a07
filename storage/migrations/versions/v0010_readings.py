"""Files are read when they have been uploaded."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

Name = sa.String(255)


def upgrade() -> None:
    """Add the columns; datasets that no job has read wait to be read, all other files are done."""
    op.add_column("files", sa.Column("status", Name, nullable=False, server_default="processed"))
    op.add_column("files", sa.Column("status_details", sa.Text(), nullable=True))
    op.add_column("files", sa.Column("lease_owner", Name, nullable=True))
    op.add_column("files", sa.Column("lease_until", sa.Double(), nullable=True))
    op.add_column("files", sa.Column("losses", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("files", sa.Column("hint_due_at", sa.Double(), nullable=True))
    op.execute(
        "UPDATE files SET status = 'uploaded', hint_due_at = 0"
        " WHERE validation IS NULL AND purpose IN ('fine-tune', 'evaluation')"
    )
    op.create_index("files_by_status", "files", ["status", "id"])
