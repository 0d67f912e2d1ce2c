"""An index."""

from alembic import op

from hector.storage.migrations.guards import has_index

revision = "9004"
down_revision = "9003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if not has_index("turns", "idx_turns_state"):
        op.create_index("idx_turns_state", "turns", ["state"])
