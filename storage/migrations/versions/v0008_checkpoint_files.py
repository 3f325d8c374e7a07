"""The projector that a job starts from, and the kind of a model."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

Name = sa.String(255)


def upgrade() -> None:
    """Add both columns; earlier jobs started from their model's own, earlier models diffuse."""
    op.add_column("jobs", sa.Column("checkpoint_file", Name, nullable=True))
    op.add_column("models", sa.Column("kind", Name, nullable=False, server_default="diffusion"))
