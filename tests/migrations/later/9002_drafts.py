"""A column that a later revision drops."""

import sqlalchemy as sa
from alembic import op

from hector.storage.migrations.guards import has_column

revision = "9002"
down_revision = "9001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if not has_column("sessions", "draft"):
        op.add_column("sessions", sa.Column("draft", sa.Integer()))
