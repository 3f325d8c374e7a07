"""A tenant's jobs of one status, without reading all the others."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.create_index("jobs_by_tenant_status", "jobs", ["tenant", "status", "id"])
