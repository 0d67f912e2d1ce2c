"""One index less."""

from alembic import op

from hector.storage.migrations.guards import has_index

revision = "9006"
down_revision = "9005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if has_index("sessions", "idx_sessions_updated_at"):
        op.drop_index("idx_sessions_updated_at", "sessions")
