"""One column less."""

from alembic import op

from hector.storage.migrations.guards import has_column

revision = "9007"
down_revision = "9006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if has_column("sessions", "draft"):
        op.drop_column("sessions", "draft")
