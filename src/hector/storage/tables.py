"""The schema, as docs/architecture.md explains it. Migrations must lead to the same (tests/migrations)."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import DDLCompiler

from hector.domain.ids import MAX_MESSAGE_ID, MAX_SESSION_ID, MAX_USER_ID

metadata = MetaData()

MYSQL_OPTIONS: dict[str, Any] = {
    # Each server's own byte-wise collation that does not ignore trailing spaces.
    "mysql_collate": "utf8mb4_0900_bin",
    "mariadb_collate": "utf8mb4_nopad_bin",
    **{f"{server}_default_charset": "utf8mb4" for server in ("mysql", "mariadb")},
    **{f"{server}_engine": "InnoDB" for server in ("mysql", "mariadb")},
    **{f"{server}_row_format": "DYNAMIC" for server in ("mysql", "mariadb")},
}
"""For every table: what MySQL and MariaDB would otherwise take from their configuration."""


def _id(length: int) -> Any:
    """Text that is compared as bytes, trailing spaces included, on every database.

    Also what is ASCII by its rule: to compare a column of ASCII with another text is an error on MySQL.
    """
    on_mysql, on_mariadb = (
        mysql.VARCHAR(length, charset="utf8mb4", collation=MYSQL_OPTIONS[f"{server}_collate"])
        for server in ("mysql", "mariadb")
    )
    return (
        String(length)
        .with_variant(String(length, collation="C"), "postgresql")
        .with_variant(on_mysql, "mysql")
        .with_variant(on_mariadb, "mariadb")
    )


_agent = _id(64)
_user = _id(MAX_USER_ID)
_session = _id(MAX_SESSION_ID)
_message = _id(MAX_MESSAGE_ID)
_uuid = _id(36)
_word = _id(32)
_time = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_text = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_blob = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _identity() -> Column[Any]:
    # SQLite makes an identity only of a column that is declared INTEGER. On PostgreSQL, unlike a serial, it
    # needs no grant on a sequence.
    return Column("id", BigInteger().with_variant(Integer(), "sqlite"), Identity(), primary_key=True)


def _derived(text: str) -> Computed:
    """What the database computes of a row's other columns, whoever writes them: the release before, too.

    Stored, for PostgreSQL has it no other way, and indexes of what is not stored have a history of defects in
    InnoDB; but SQLite can add to a table only what is not.
    """
    made = Computed(text, persisted=True)
    made.info["virtual_on_sqlite"] = True
    return made


@compiles(Computed, "sqlite")
def _computed_on_sqlite(element: Computed, compiler: DDLCompiler, **options: Any) -> str:
    made: str = compiler.visit_computed_column(element, **options)  # type: ignore[no-untyped-call]
    return made.replace(" STORED", " VIRTUAL") if "virtual_on_sqlite" in element.info else made


def _key() -> tuple[Column[Any], ...]:
    return (
        Column("agent_id", _agent, nullable=False),
        Column("user_id", _user, nullable=False),
        Column("session_id", _session, nullable=False),
    )


sessions = Table(
    "sessions",
    metadata,
    Column("id", _session, nullable=False),
    Column("agent_id", _agent, nullable=False),
    Column("user_id", _user, nullable=False),
    Column("metadata", _text, nullable=False),
    Column("created_at", _time, nullable=False),
    Column("updated_at", _time, nullable=False),
    Column("incarnation", _id(32), nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("next_ticket", BigInteger, nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("lease_owner", _uuid),
    Column("lease_turn_id", _uuid),
    Column("lease_epoch", BigInteger, nullable=False),
    # The latest summary's, so that a session without one is read without looking for it.
    Column("summarized_through_seq", BigInteger, nullable=False),
    Column("indexed_through_seq", BigInteger, nullable=False),
    PrimaryKeyConstraint("agent_id", "user_id", "id"),
    Index("idx_sessions_agent_id", "agent_id"),
    Index("idx_sessions_updated_at", "updated_at"),
    **MYSQL_OPTIONS,
)

messages = Table(
    "messages",
    metadata,
    _identity(),
    *_key(),
    Column("seq", BigInteger),
    Column("turn_id", _uuid, nullable=False),
    Column("message_id", _message),
    Column("retry", Integer, nullable=False),
    Column("role", SmallInteger, nullable=False),
    Column("content", _text, nullable=False),
    Column("metadata", _text),
    Column("tokens", Integer, nullable=False),
    Column("ticket", BigInteger),
    # Whose work the message is while it waits.
    Column("replica_id", _uuid),
    # The turn id that the message's arrival brought, where it went to a paused turn and made none.
    Column("arrival_id", _uuid),
    # How the run that it began ended, where its turn went on after that or never took it.
    Column("run_state", _word),
    # Why its turn has no answer: a mark for the context, so that reading the tail needs no other table.
    Column("unanswered", _id(64)),
    Column("created_at", _time, nullable=False),
    ForeignKeyConstraint(
        ["agent_id", "user_id", "session_id"], ["sessions.agent_id", "sessions.user_id", "sessions.id"]
    ),
    UniqueConstraint("agent_id", "user_id", "session_id", "seq", name="uq_messages_seq"),
    UniqueConstraint(
        "agent_id", "user_id", "session_id", "message_id", "retry", name="uq_messages_message_id"
    ),
    Index("idx_messages_session_id", "session_id"),
    sqlite_autoincrement=True,
    **MYSQL_OPTIONS,
)
Index(
    "idx_messages_waiting",
    messages.c.replica_id,
    sqlite_where=messages.c.replica_id.is_not(None),
    postgresql_where=messages.c.replica_id.is_not(None),
)

turns = Table(
    "turns",
    metadata,
    Column("agent_id", _agent, nullable=False),
    Column("user_id", _user, nullable=False),
    Column("id", _uuid, nullable=False),
    Column("session_id", _session, nullable=False),
    Column("state", _word, nullable=False),
    Column("reason", _id(64)),
    Column("error", _text),
    Column("retryable", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    # Of the lease of its last run: tells one's own success from another's.
    Column("epoch", BigInteger),
    Column("superseded", Boolean, nullable=False),
    # Of its last run; those before a pause are in earlier_runs, as JSON [[first, last], ...]. Their messages
    # are another turn's where the answer to its question failed and was sent again.
    Column("first_seq", BigInteger),
    Column("last_seq", BigInteger),
    Column("earlier_runs", _text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    # Whose work it is while it runs.
    Column("replica_id", _uuid),
    Column("created_at", _time, nullable=False),
    Column("started_at", _time),
    Column("ended_at", _time),
    # When it came into its state.
    Column("changed_at", _time, _derived("COALESCE(ended_at, started_at, created_at)")),
    PrimaryKeyConstraint("agent_id", "user_id", "id"),
    Index("idx_turns_session", "agent_id", "user_id", "session_id", "id"),
    **MYSQL_OPTIONS,
)
Index(
    "idx_turns_running",
    turns.c.replica_id,
    sqlite_where=turns.c.replica_id.is_not(None),
    postgresql_where=turns.c.replica_id.is_not(None),
)

# For listings of a user's turns. The state stands last, so that those of one state are found and counted here
# alone. The condition is always true, and PostgreSQL uses the index only where a query says so, too: told of
# few rows, it would otherwise look for a turn by its id in it.
Index(
    "idx_turns_listed",
    turns.c.agent_id,
    turns.c.user_id,
    turns.c.changed_at,
    turns.c.id,
    turns.c.state,
    postgresql_where=turns.c.changed_at.is_not(None),
)

summaries = Table(
    "summaries",
    metadata,
    _identity(),
    *_key(),
    Column("through_seq", BigInteger, nullable=False),
    Column("content", _text, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("created_at", _time, nullable=False),
    UniqueConstraint("agent_id", "user_id", "session_id", "through_seq", name="uq_summaries_through_seq"),
    **MYSQL_OPTIONS,
)

turn_events = Table(
    "turn_events",
    metadata,
    *_key(),
    Column("turn_id", _uuid, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("first_number", BigInteger, nullable=False),
    Column("last_number", BigInteger, nullable=False),
    Column("content", _text, nullable=False),
    Column("created_at", _time, nullable=False),
    PrimaryKeyConstraint("agent_id", "user_id", "turn_id", "attempt", "first_number"),
    Index("idx_turn_events_session", "agent_id", "user_id", "session_id"),
    Index("idx_turn_events_created_at", "created_at"),
    **MYSQL_OPTIONS,
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", _uuid, primary_key=True),
    Column("label", _id(255), nullable=False),
    Column("ttl_ms", BigInteger, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("started_at", _time, nullable=False),
    # Of the connection that beats; NULL where none is held, or it is a file's.
    Column("lock_name", _id(64)),
    **MYSQL_OPTIONS,
)

tombstones = Table(
    "tombstones",
    metadata,
    _identity(),
    *_key(),
    Column("incarnation", _id(32), nullable=False),
    # NULL: the whole session; else a range of its messages.
    Column("from_seq", BigInteger),
    Column("through_seq", BigInteger),
    Column("created_at", _time, nullable=False),
    Index("idx_tombstones_session", "agent_id", "user_id", "session_id"),
    **MYSQL_OPTIONS,
)

push_configs = Table(
    "push_configs",
    metadata,
    *_key(),
    Column("turn_id", _uuid, nullable=False),
    Column("id", _message, nullable=False),
    Column("content", _text, nullable=False),
    Column("created_at", _time, nullable=False),
    PrimaryKeyConstraint("agent_id", "user_id", "turn_id", "id"),
    Index("idx_push_configs_session", "agent_id", "user_id", "session_id"),
    **MYSQL_OPTIONS,
)

push_deliveries = Table(
    "push_deliveries",
    metadata,
    *_key(),
    Column("turn_id", _uuid, nullable=False),
    Column("config_id", _message, nullable=False),
    # Places in what the turn has to tell: where this configuration begins, and what it was told last.
    Column("since", BigInteger, nullable=False),
    Column("told", BigInteger),
    # The turn as it stood when all was told; NULL while something is not.
    Column("seen_state", _word),
    Column("seen_attempt", Integer),
    # Who tells it now, fenced by the epoch.
    Column("replica_id", _uuid),
    Column("epoch", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failing_since", _time),
    Column("next_try", _time),
    PrimaryKeyConstraint("agent_id", "user_id", "turn_id", "config_id"),
    Index("idx_push_deliveries_session", "agent_id", "user_id", "session_id"),
    **MYSQL_OPTIONS,
)

files = Table(
    "files",
    metadata,
    *_key(),
    Column("sha256", _id(64), nullable=False),
    Column("data", _blob, nullable=False),
    PrimaryKeyConstraint("agent_id", "user_id", "session_id", "sha256"),
    **MYSQL_OPTIONS,
)
