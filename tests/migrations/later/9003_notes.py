"""A table."""

import sqlalchemy as sa
from alembic import op

from hector.storage.migrations.guards import has_table

revision = "9003"
down_revision = "9002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if not has_table("notes"):
        op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False))
