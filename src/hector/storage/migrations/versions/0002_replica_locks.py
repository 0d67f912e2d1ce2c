"""Which lock a replica holds, so that others see when its connection has ended."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from hector.storage.migrations.guards import has_column

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LOCK_NAME = (
    sa.String(64)
    .with_variant(sa.String(64, collation="C"), "postgresql")
    .with_variant(mysql.VARCHAR(64, charset="utf8mb4", collation="utf8mb4_0900_bin"), "mysql")
    .with_variant(mysql.VARCHAR(64, charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mariadb")
)


def upgrade() -> None:
    # NULL for the replicas of the release before, which know nothing of it and are judged by their counter.
    if not has_column("replicas", "lock_name"):
        op.add_column("replicas", sa.Column("lock_name", LOCK_NAME))
