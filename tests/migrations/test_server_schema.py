"""The schema on a database server: made, found, migrated, started afresh, or refused with a reason."""

import re
from dataclasses import replace

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import URL
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import ColumnCollectionConstraint, CreateSchema, CreateTable

from hector.domain.errors import StoreOpenError
from hector.domain.ids import MAX_MESSAGE_ID, MAX_SESSION_ID, MAX_USER_ID
from hector.domain.replicas import ReplicaRow
from hector.storage.migrate import (
    CREATING,
    HECTOR,
    VERSION_TABLE,
    History,
    alembic_config,
    migrate,
    version_table,
)
from hector.storage.opening import open_server
from tests.migrations.history import LATER
from tests.migrations.starts import described, drop_everything, fill, start, version
from tests.servers import Database, PostgresServer

AT_HEAD = [(HECTOR.head,)]


async def migrated(db: Database, revision: str = "head", history: History = HECTOR) -> None:
    """By the migrations, one after the other."""
    driver = "postgresql+asyncpg" if db.driver == "postgres" else "mariadb+asyncmy"
    engine = create_async_engine(URL.create(driver, db.user, db.password, db.host, db.port, db.database))
    async with engine.begin() as connection:
        if db.driver == "postgres":
            await connection.execute(CreateSchema(db.user))
        await connection.run_sync(version_table.create, checkfirst=True)
        await connection.run_sync(migrate, revision, history)
    await engine.dispose()


async def refusal(db: Database, **settings: bool) -> str:
    with pytest.raises(StoreOpenError) as refused:
        await start(db, HECTOR, **settings)
    assert not refused.value.retryable
    text = str(refused.value)
    beginning = "failed to connect to session store 'main': "
    assert text.startswith(beginning), text
    return text.removeprefix(beginning)


# --- tables.py and the migrations


async def test_the_migrations_lead_to_the_tables(server_db: Database) -> None:
    await start(server_db)
    created = await described(server_db)
    assert set(created) == HECTOR.names
    await drop_everything(server_db)
    await migrated(server_db)
    assert await described(server_db) == created
    assert await version(server_db) == AT_HEAD


async def test_turns_that_the_release_before_wrote_tell_when_they_changed(server_db: Database) -> None:
    await migrated(server_db, "0003")
    await fill(server_db)
    await start(server_db)
    for column in ("created_at", "started_at", "ended_at"):
        await server_db.run(f"UPDATE turns SET {column} = '2026-01-02'")
        assert await server_db.run(f"SELECT id FROM turns WHERE changed_at = {column}") == [("t",)]
        await server_db.run(f"UPDATE turns SET {column} = '2026-01-01'")


async def test_an_older_schema_is_migrated_with_what_is_in_it(server_db: Database) -> None:
    await start(server_db)
    await fill(server_db)
    await start(server_db, LATER)
    assert await version(server_db) == [(LATER.head,)]
    assert await server_db.run("SELECT id, user_id, title FROM sessions") == [("s", "u", "u")]
    assert await server_db.run("SELECT session_id, turn_id FROM messages") == [("s", "t")]
    by_migration = await described(server_db)
    await drop_everything(server_db)
    await start(server_db, LATER)
    assert await described(server_db) == by_migration


async def test_every_revision_after_the_first_may_be_repeated(mysql_db: Database) -> None:
    """A kill between a change and the note of it leaves one that was made and is not noted."""
    scripts = ScriptDirectory.from_config(alembic_config(LATER))
    first, *others = reversed([script.revision for script in scripts.walk_revisions()])
    await migrated(mysql_db, first)
    await fill(mysql_db)
    before = first
    for revision in others:
        await migrated(mysql_db, revision, LATER)
        once = await described(mysql_db)
        await mysql_db.run(f"UPDATE {VERSION_TABLE} SET version_num = '{before}'")
        await migrated(mysql_db, revision, LATER)
        assert await described(mysql_db) == once
        before = revision


# --- the second revision: a replica's lock

OLD_STATEMENTS = (
    (
        "INSERT INTO replicas (id, label, ttl_ms, counter, started_at)"
        " VALUES ('{id}', '', 15000, 0, '2026-01-01')"
    ),
    "UPDATE replicas SET counter = counter + 1 WHERE id = '{id}'",
    "DELETE FROM replicas WHERE id = '{id}' AND counter = 0",
)
"""Of the release before: register, beat, declare dead."""


async def test_replicas_that_serve_while_their_table_gets_a_lock_go_on(server_db: Database) -> None:
    await migrated(server_db, "0001")
    before = [text.format(id="before") for text in OLD_STATEMENTS]
    await server_db.run(*before)
    await start(server_db)
    assert await server_db.run("SELECT id, counter, lock_name FROM replicas") == [("before", 1, None)]
    after = [text.format(id="after") for text in OLD_STATEMENTS]
    await server_db.run(*after, before[1])
    rows = await server_db.run("SELECT id, label, ttl_ms, counter FROM replicas ORDER BY id")
    assert rows == [("after", "", 15000, 1), ("before", "", 15000, 2)]


async def test_a_replica_of_the_release_before_is_judged_by_its_counter_alone(server_db: Database) -> None:
    await migrated(server_db, "0001")
    await server_db.run(OLD_STATEMENTS[0].format(id="before"))
    store = await open_server(server_db.driver, server_db.settings())
    rows = await store.replicas()
    assert rows == [ReplicaRow("before", "", 15.0, 0)]
    assert store.locks
    assert not await store.locks.freed(rows)
    await store.close()


# --- the tables


async def test_identities_are_of_the_sql_standard(postgres_db: Database) -> None:
    await start(postgres_db)
    rows = await postgres_db.run(
        "SELECT table_name, column_name, identity_generation FROM information_schema.columns"
        f" WHERE table_schema = '{postgres_db.user}' AND (is_identity = 'YES' OR column_default IS NOT NULL)"
    )
    assert sorted(rows) == [
        ("messages", "id", "BY DEFAULT"),
        ("summaries", "id", "BY DEFAULT"),
        ("tombstones", "id", "BY DEFAULT"),
    ]


async def test_texts_that_are_keys_are_compared_as_bytes(server_db: Database) -> None:
    await start(server_db)
    rows = await server_db.run(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE data_type LIKE '%char%'"
        " AND table_name <> 'hector_version'"
        f" AND table_schema IN ('{server_db.user}', '{server_db.database}')"
    )
    assert rows == [("C" if server_db.driver == "postgres" else "utf8mb4_nopad_bin",)]


async def test_no_text_is_cut_and_no_time_is_rounded(mysql_db: Database) -> None:
    await start(mysql_db)
    rows = await mysql_db.run(
        "SELECT DISTINCT column_type FROM information_schema.columns WHERE table_schema = DATABASE()"
        " AND data_type NOT LIKE '%int' AND data_type <> 'varchar'"
    )
    assert {kind for (kind,) in rows} == {"longtext", "longblob", "datetime(6)"}


async def test_the_servers_configuration_decides_nothing(mysql_db: Database) -> None:
    await start(mysql_db)
    rows = await mysql_db.run(
        "SELECT DISTINCT engine, row_format, table_collation FROM information_schema.tables"
        " WHERE table_schema = DATABASE()"
    )
    assert rows == [("InnoDB", "Dynamic", "utf8mb4_nopad_bin")]


async def test_every_index_is_a_tree_over_whole_columns(mysql_db: Database) -> None:
    """MariaDB makes a unique key that is too long for a tree a hash index, and says nothing."""
    await start(mysql_db)
    rows = await mysql_db.run(
        "SELECT DISTINCT index_type, sub_part FROM information_schema.statistics"
        " WHERE table_schema = DATABASE()"
    )
    assert rows == [("BTREE", None)]
    lengths = await mysql_db.run(
        "SELECT s.table_name, s.index_name, SUM(COALESCE(c.character_octet_length, 8) + 3)"
        " FROM information_schema.statistics s JOIN information_schema.columns c"
        " USING (table_schema, table_name, column_name) WHERE table_schema = DATABASE()"
        " GROUP BY s.table_name, s.index_name"
    )
    assert len(lengths) > 20
    assert max(length for *_, length in lengths) < 3072


def test_mysql_itself_is_told_a_collation_that_it_has() -> None:
    """It is not MariaDB's, and there is no such server among those of the tests."""
    for table in HECTOR.metadata.sorted_tables:
        sql = str(CreateTable(table).compile(dialect=mysql.dialect()))
        assert sql.endswith("COLLATE utf8mb4_0900_bin\n\n")
        assert "nopad" not in sql
        for line in sql.splitlines():
            assert ("COLLATE utf8mb4_0900_bin" in line) == ("VARCHAR" in line or line.startswith(")")), line
            assert not re.search(r"\s(TEXT|BLOB)\b", line), line


def test_no_key_is_too_long_on_mysql() -> None:
    """Where all texts have four bytes for a character."""
    for table in HECTOR.metadata.tables.values():
        keys = [each for each in table.constraints if isinstance(each, ColumnCollectionConstraint)]
        for columns in (*(key.columns for key in keys), *(index.columns for index in table.indexes)):
            length = sum(4 * getattr(column.type, "length", 2) + 3 for column in columns)
            assert length < 3072, (table.name, columns)


async def test_ids_of_full_length_fit_into_all_columns_at_once(server_db: Database) -> None:
    await start(server_db)
    widest = "\N{GRINNING FACE}"
    user, session, message = (widest * n for n in (MAX_USER_ID, MAX_SESSION_ID, MAX_MESSAGE_ID))
    agent, turn = "a" * 64, "t" * 36
    key = f"'{agent}', '{user}', '{session}'"
    now = "'2026-01-01'"
    await server_db.run(
        "INSERT INTO sessions (agent_id, user_id, id, metadata, created_at, updated_at, incarnation,"
        " last_seq, next_ticket, waiting, lease_owner, lease_turn_id, lease_epoch, summarized_through_seq,"
        f" indexed_through_seq) VALUES ({key}, '{{}}', {now}, {now}, '{'i' * 32}', 1, 0, 0, '{turn}',"
        f" '{turn}', 1, 0, 0)",
        "INSERT INTO turns (agent_id, user_id, session_id, id, state, reason, retryable, attempt, superseded,"
        f" input_tokens, output_tokens, replica_id, created_at) VALUES ({key}, '{turn}', '{'s' * 32}',"
        f" '{'r' * 64}', false, 1, false, 0, 0, '{turn}', {now})",
        "INSERT INTO messages (agent_id, user_id, session_id, seq, turn_id, message_id, retry, role, content,"
        " tokens, replica_id, arrival_id, run_state, unanswered, created_at)"
        f" VALUES ({key}, 1, '{turn}', '{message}', 0, 1, '[]', 1, '{turn}', '{turn}', '{'s' * 32}',"
        f" '{'u' * 64}', {now})",
        "INSERT INTO summaries (agent_id, user_id, session_id, through_seq, content, tokens, created_at)"
        f" VALUES ({key}, 1, 'x', 1, {now})",
        "INSERT INTO turn_events (agent_id, user_id, session_id, turn_id, attempt, first_number, last_number,"
        f" content, created_at) VALUES ({key}, '{turn}', 1, 1, 1, '', {now})",
        "INSERT INTO replicas (id, label, ttl_ms, counter, started_at)"
        f" VALUES ('{turn}', '{widest * 255}', 1, 1, {now})",
        "INSERT INTO tombstones (agent_id, user_id, session_id, incarnation, created_at)"
        f" VALUES ({key}, '{'i' * 32}', {now})",
        "INSERT INTO push_configs (agent_id, user_id, session_id, turn_id, id, content, created_at)"
        f" VALUES ({key}, '{turn}', '{message}', '', {now})",
        "INSERT INTO push_deliveries (agent_id, user_id, session_id, turn_id, config_id, since, seen_state,"
        " replica_id, epoch, failures)"
        f" VALUES ({key}, '{turn}', '{message}', 1, '{'s' * 32}', '{turn}', 1, 0)",
        f"INSERT INTO files (agent_id, user_id, session_id, sha256, data) VALUES ({key}, '{'f' * 64}', '')",
    )
    for table in HECTOR.metadata.tables:
        assert await server_db.run(f"SELECT COUNT(*) FROM {table}") == [(1,)], table


async def test_ids_that_look_alike_are_different(server_db: Database) -> None:
    await start(server_db)
    alike = [
        "Alice",
        "alice",
        "Alice ",
        "Alice  ",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "e\N{COMBINING ACUTE ACCENT}",
    ]
    insert = (
        "INSERT INTO sessions (agent_id, user_id, id, metadata, created_at, updated_at, incarnation,"
        " last_seq, next_ticket, waiting, lease_epoch, summarized_through_seq, indexed_through_seq)"
        " VALUES ('a', '{0}', '{0}', '{{}}', '2026-01-01', '2026-01-01', '', 0, 0, 0, 0, 0, 0)"
    )
    await server_db.run(*(insert.format(each) for each in alike))
    for each in alike:
        assert await server_db.run(f"SELECT id FROM sessions WHERE id = '{each}'") == [(each,)]
        assert await server_db.run(f"SELECT id FROM turns WHERE id = '{each}'") == []


# --- what the guide tells operators to run


@pytest.mark.parametrize(
    "command",
    [
        "SELECT * FROM sessions",
        "SELECT id, agent_id, created_at FROM sessions",
        "SELECT id, agent_id FROM sessions WHERE id='s'",
        "SELECT COUNT(*) FROM sessions",
        "SELECT session_id, role, left(content, 50) FROM messages",
    ],
)
async def test_a_command_to_look_inside_works(server_db: Database, command: str) -> None:
    await start(server_db)
    await fill(server_db)
    assert len(await server_db.run(command)) == 1


async def test_the_commands_of_maintenance_work(server_db: Database) -> None:
    await start(server_db)
    await fill(server_db)
    command = "VACUUM ANALYZE" if server_db.driver == "postgres" else "OPTIMIZE TABLE"
    for table in ("sessions", "messages"):
        answer = await server_db.run(f"{command} {table}")
        assert not answer or answer[-1][-2:] == ("status", "OK")


async def test_the_documented_indexes_have_their_names(server_db: Database) -> None:
    await start(server_db)
    for table, columns in [("sessions", ["agent_id", "updated_at"]), ("messages", ["session_id"])]:
        for column in columns:
            index = f"idx_{table}_{column}"
            if server_db.driver == "postgres":
                rows = await server_db.run(f"SELECT 1 FROM pg_indexes WHERE indexname = '{index}'")
            else:
                rows = await server_db.run(f"SHOW INDEX FROM {table} WHERE Key_name = '{index}'")
            assert len(rows) == 1


@pytest.mark.parametrize("history", [HECTOR, LATER], ids=["same release", "next release"])
async def test_after_dropping_both_tables_a_start_makes_a_fresh_schema(
    server_db: Database, history: History
) -> None:
    await start(server_db, history)
    fresh = await described(server_db)
    await drop_everything(server_db)
    await start(server_db)
    await fill(server_db)
    await server_db.run("DROP TABLE messages", "DROP TABLE sessions")
    await start(server_db, history)
    assert await described(server_db) == fresh
    assert await server_db.run("SELECT COUNT(*) FROM turns") == [(0,)]
    assert await version(server_db) == [(history.head,)]


@pytest.mark.parametrize(
    ("table", "left"), [("messages", "table 'sessions'"), ("turns", "tables 'messages' and 'sessions'")]
)
async def test_after_dropping_one_table_nothing_else_is_thrown_away(
    server_db: Database, table: str, left: str
) -> None:
    await start(server_db)
    await fill(server_db)
    await server_db.run(f"DROP TABLE {table}")
    assert await refusal(server_db) == (
        f"its table {table!r} is gone; restore the database from a backup, or drop the {left} to start afresh"
    )
    assert await server_db.run("SELECT COUNT(*) FROM sessions") == [(1,)]


# --- what cannot be used


@pytest.mark.parametrize("table", ["sessions", "files"])
async def test_another_programs_tables_are_refused_and_left_alone(server_db: Database, table: str) -> None:
    schema = server_db.user if server_db.driver == "postgres" else None
    if schema:
        await server_db.run(f"CREATE SCHEMA {schema}")
    await server_db.run(f"CREATE TABLE {table} (x INTEGER)")
    before = await described(server_db)
    own = "a database, or a schema (key `schema`)," if schema else "a database"
    assert (
        await refusal(server_db)
        == f"its table {table!r} was not made by Hector; give Hector {own} of its own"
    )
    assert await described(server_db) == before


async def test_a_view_of_another_program_is_refused_too(server_db: Database) -> None:
    if server_db.driver == "postgres":
        await server_db.run(f"CREATE SCHEMA {server_db.user}")
    await server_db.run("CREATE VIEW sessions AS SELECT 1 AS x")
    assert "its table 'sessions' was not made by Hector" in await refusal(server_db)


async def test_another_programs_tables_of_other_names_are_left_alone(server_db: Database) -> None:
    if server_db.driver == "postgres":
        await server_db.run(f"CREATE SCHEMA {server_db.user}")
    await server_db.run(
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('theirs')",
        "CREATE TABLE notes (x INTEGER)",
    )
    await start(server_db)
    await server_db.run("DROP TABLE messages", "DROP TABLE sessions")
    await start(server_db)
    assert await server_db.run("SELECT * FROM alembic_version") == [("theirs",)]
    assert await server_db.run("SELECT COUNT(*) FROM notes") == [(0,)]


async def test_a_newer_schema_is_refused_and_left_alone(server_db: Database) -> None:
    await start(server_db, LATER)
    before = await described(server_db)
    assert await refusal(server_db) == (
        f"its schema is of a newer Hector; this one knows versions up to {HECTOR.head}: upgrade Hector"
    )
    assert await described(server_db) == before
    assert await version(server_db) == [(LATER.head,)]


async def test_without_auto_migrate_nothing_is_created(server_db: Database) -> None:
    assert await refusal(server_db, auto_migrate=False) == (
        "its schema is not there, and auto_migrate is off: let `hector db migrate` make it"
    )
    assert await described(server_db) == {}


async def test_without_auto_migrate_nothing_is_migrated(server_db: Database) -> None:
    await start(server_db)
    await start(server_db, auto_migrate=False)
    needed = f"is of version {HECTOR.head}, and this release needs {LATER.head}, and auto_migrate is off"
    with pytest.raises(StoreOpenError, match=needed):
        await start(server_db, LATER, auto_migrate=False)
    assert await version(server_db) == AT_HEAD


async def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: PostgresServer) -> None:
    db = await postgres_server.create_database()
    await db.run(
        f"CREATE DATABASE {db.database}_latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
        " TEMPLATE template0",
        f"GRANT ALL PRIVILEGES ON DATABASE {db.database}_latin TO {db.user}",
        admin=True,
    )
    try:
        text = await refusal(replace(db, database=f"{db.database}_latin"))
    finally:
        await db.run(f"DROP DATABASE {db.database}_latin", admin=True)
        await postgres_server.drop_database(db)
    assert text.startswith(f"its database '{db.database}_latin' has the encoding LATIN1, which cannot hold")


async def test_tables_that_were_never_completed_and_hold_rows_are_not_dropped(server_db: Database) -> None:
    await start(server_db)
    await fill(server_db)
    await server_db.run(f"UPDATE {VERSION_TABLE} SET version_num = '{CREATING}'")
    before = await described(server_db)
    assert "its tables were never completed, and yet 'messages' holds rows; " in await refusal(server_db)
    assert await described(server_db) == before
    for table in ("sessions", "messages", "turns"):
        assert await server_db.run(f"SELECT COUNT(*) FROM {table}") == [(1,)]
