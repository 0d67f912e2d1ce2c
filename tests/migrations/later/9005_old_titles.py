"""What the sessions of the release before have in the new column."""

from alembic import op

revision = "9005"
down_revision = "9004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE sessions SET title = user_id WHERE title IS NULL")
