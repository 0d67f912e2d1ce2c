"""Sessions, turns, messages, and what belongs to them."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
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


AGENT, USER, SESSION, MESSAGE = _bytewise(64), _bytewise(255), _bytewise(191), _bytewise(191)
UUID, WORD = _bytewise(36), _bytewise(32)
TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
BLOB = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _identity() -> "sa.Column[Any]":
    return sa.Column("id", IDENTITY, sa.Identity(), autoincrement=True, nullable=False)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", SESSION, nullable=False),
        sa.Column("agent_id", AGENT, nullable=False),
        sa.Column("user_id", USER, nullable=False),
        sa.Column("metadata", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("incarnation", _bytewise(32), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("next_ticket", sa.BigInteger(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("lease_owner", UUID),
        sa.Column("lease_turn_id", UUID),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.Column("summarized_through_seq", sa.BigInteger(), nullable=False),
        sa.Column("indexed_through_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "user_id", "id"),
        **OPTIONS,
    )
    op.create_index("idx_sessions_agent_id", "sessions", ["agent_id"])
    op.create_index("idx_sessions_updated_at", "sessions", ["updated_at"])
    op.create_table(
        "messages",
        _identity(),
        sa.Column("agent_id", AGENT, nullable=False),
        sa.Column("user_id", USER, nullable=False),
        sa.Column("session_id", SESSION, nullable=False),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("turn_id", UUID, nullable=False),
        sa.Column("message_id", MESSAGE),
        sa.Column("retry", sa.Integer(), nullable=False),
        sa.Column("role", sa.SmallInteger(), nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("metadata", TEXT),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("ticket", sa.BigInteger()),
        sa.Column("replica_id", UUID),
        sa.Column("arrival_id", UUID),
        sa.Column("run_state", WORD),
        sa.Column("unanswered", _bytewise(64)),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(
            ["agent_id", "user_id", "session_id"], ["sessions.agent_id", "sessions.user_id", "sessions.id"]
        ),
        sa.UniqueConstraint(
            "agent_id", "user_id", "session_id", "message_id", "retry", name="uq_messages_message_id"
        ),
        sa.UniqueConstraint("agent_id", "user_id", "session_id", "seq", name="uq_messages_seq"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_index("idx_messages_session_id", "messages", ["session_id"])
    op.create_index(
        "idx_messages_waiting",
        "messages",
        ["replica_id"],
        sqlite_where=sa.text("replica_id IS NOT NULL"),
        postgresql_where=sa.text("replica_id IS NOT NULL"),
    )
    op.create_table(
        "turns",
        sa.Column("agent_id", AGENT, nullable=False),
        sa.Column("user_id", USER, nullable=False),
        sa.Column("id", UUID, nullable=False),
        sa.Column("session_id", SESSION, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("reason", _bytewise(64)),
        sa.Column("error", TEXT),
        sa.Column("retryable", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger()),
        sa.Column("superseded", sa.Boolean(), nullable=False),
        sa.Column("first_seq", sa.BigInteger()),
        sa.Column("last_seq", sa.BigInteger()),
        sa.Column("earlier_runs", TEXT),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("replica_id", UUID),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("ended_at", TIME),
        sa.PrimaryKeyConstraint("agent_id", "user_id", "id"),
        **OPTIONS,
    )
    op.create_index(
        "idx_turns_running",
        "turns",
        ["replica_id"],
        sqlite_where=sa.text("replica_id IS NOT NULL"),
        postgresql_where=sa.text("replica_id IS NOT NULL"),
    )
    op.create_index("idx_turns_session", "turns", ["agent_id", "user_id", "session_id", "id"])
    op.create_table(
        "summaries",
        _identity(),
        sa.Column("agent_id", AGENT, nullable=False),
        sa.Column("user_id", USER, nullable=False),
        sa.Column("session_id", SESSION, nullable=False),
        sa.Column("through_seq", sa.BigInteger(), nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "agent_id", "user_id", "session_id", "through_seq", name="uq_summaries_through_seq"
        ),
        **OPTIONS,
    )
    op.create_table(
        "turn_events",
        sa.Column("agent_id", AGENT, nullable=False),
        sa.Column("user_id", USER, nullable=False),
        sa.Column("session_id", SESSION, nullable=False),
        sa.Column("turn_id", UUID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("first_number", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "user_id", "turn_id", "attempt", "first_number"),
        **OPTIONS,
    )
    op.create_index("idx_turn_events_created_at", "turn_events", ["created_at"])
    op.create_index("idx_turn_events_session", "turn_events", ["agent_id", "user_id", "session_id"])
    op.create_table(
        "replicas",
        sa.Column("id", UUID, nullable=False),
        sa.Column("label", _bytewise(255), nullable=False),
        sa.Column("ttl_ms", sa.BigInteger(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **OPTIONS,
    )
    op.create_table(
        "tombstones",
        _identity(),
        sa.Column("agent_id", AGENT, nullable=False),
        sa.Column("user_id", USER, nullable=False),
        sa.Column("session_id", SESSION, nullable=False),
        sa.Column("incarnation", _bytewise(32), nullable=False),
        sa.Column("from_seq", sa.BigInteger()),
        sa.Column("through_seq", sa.BigInteger()),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **OPTIONS,
    )
    op.create_index("idx_tombstones_session", "tombstones", ["agent_id", "user_id", "session_id"])
    op.create_table(
        "push_configs",
        sa.Column("agent_id", AGENT, nullable=False),
        sa.Column("user_id", USER, nullable=False),
        sa.Column("session_id", SESSION, nullable=False),
        sa.Column("turn_id", UUID, nullable=False),
        sa.Column("id", MESSAGE, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "user_id", "turn_id", "id"),
        **OPTIONS,
    )
    op.create_index("idx_push_configs_session", "push_configs", ["agent_id", "user_id", "session_id"])
    op.create_table(
        "files",
        sa.Column("agent_id", AGENT, nullable=False),
        sa.Column("user_id", USER, nullable=False),
        sa.Column("session_id", SESSION, nullable=False),
        sa.Column("sha256", _bytewise(64), nullable=False),
        sa.Column("data", BLOB, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "user_id", "session_id", "sha256"),
        **OPTIONS,
    )
