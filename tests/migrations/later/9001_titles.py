"""A column."""

import sqlalchemy as sa
from alembic import op

from hector.storage.migrate import HECTOR
from hector.storage.migrations.guards import has_column

revision = "9001"
down_revision = HECTOR.head
branch_labels = None
depends_on = None


def upgrade() -> None:
    if not has_column("sessions", "title"):
        op.add_column("sessions", sa.Column("title", sa.String(100)))
