"""When each turn came into its state, and the index by which turns are listed in that order."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from hector.storage.migrations.guards import has_column, has_index

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    if not has_column("turns", "changed_at"):
        # The database keeps it true, whatever the release before writes meanwhile. SQLite can
        # add only what is not stored.
        stored = op.get_bind().dialect.name != "sqlite"
        derived = sa.Computed("COALESCE(ended_at, started_at, created_at)", persisted=stored)
        op.add_column("turns", sa.Column("changed_at", TIME, derived))
    if not has_index("turns", "idx_turns_listed"):
        op.create_index(
            "idx_turns_listed",
            "turns",
            ["agent_id", "user_id", "changed_at", "id", "state"],
            postgresql_where=sa.text("changed_at IS NOT NULL"),
        )
