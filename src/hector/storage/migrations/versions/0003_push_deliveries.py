"""How far each push configuration has been told, as long as there is more to come."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from hector.storage.migrations.guards import has_index, has_table

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {
    "mysql_collate": "utf8mb4_0900_bin",
    "mariadb_collate": "utf8mb4_nopad_bin",
    **{f"{server}_default_charset": "utf8mb4" for server in ("mysql", "mariadb")},
    **{f"{server}_engine": "InnoDB" for server in ("mysql", "mariadb")},
    **{f"{server}_row_format": "DYNAMIC" for server in ("mysql", "mariadb")},
}


def _bytewise(length: int) -> Any:
    on_mysql, on_mariadb = (
        mysql.VARCHAR(length, charset="utf8mb4", collation=OPTIONS[f"{server}_collate"])
        for server in ("mysql", "mariadb")
    )
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="C"), "postgresql")
        .with_variant(on_mysql, "mysql")
        .with_variant(on_mariadb, "mariadb")
    )


TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    if not has_table("push_deliveries"):
        op.create_table(
            "push_deliveries",
            sa.Column("agent_id", _bytewise(64), nullable=False),
            sa.Column("user_id", _bytewise(255), nullable=False),
            sa.Column("session_id", _bytewise(191), nullable=False),
            sa.Column("turn_id", _bytewise(36), nullable=False),
            sa.Column("config_id", _bytewise(191), nullable=False),
            sa.Column("since", sa.BigInteger(), nullable=False),
            sa.Column("told", sa.BigInteger()),
            sa.Column("seen_state", _bytewise(32)),
            sa.Column("seen_attempt", sa.Integer()),
            sa.Column("replica_id", _bytewise(36)),
            sa.Column("epoch", sa.BigInteger(), nullable=False),
            sa.Column("failures", sa.Integer(), nullable=False),
            sa.Column("failing_since", TIME),
            sa.Column("next_try", TIME),
            sa.PrimaryKeyConstraint("agent_id", "user_id", "turn_id", "config_id"),
            **OPTIONS,
        )
    if not has_index("push_deliveries", "idx_push_deliveries_session"):
        op.create_index(
            "idx_push_deliveries_session", "push_deliveries", ["agent_id", "user_id", "session_id"]
        )
