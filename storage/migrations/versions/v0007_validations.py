"""What jobs have found in the files that they read."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; files that were read before know nothing until the next job reads them."""
    op.add_column("files", sa.Column("validation", sa.JSON(none_as_null=True), nullable=True))
