"""Starts that are killed while they create or migrate, and starts that come at once."""

import asyncio
import base64
import logging
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hector.domain.errors import StoreUnreachableError
from hector.storage import migrate
from hector.storage.migrate import HECTOR
from hector.storage.mysql import migrate as mysql_migrate
from hector.storage.postgres import migrate as postgres_migrate
from tests.migrations.dying import DyingStarts, dying_starts
from tests.migrations.history import LATER
from tests.migrations.starts import (
    connected_to_mysql,
    connected_to_postgres,
    described,
    drop_everything,
    fill,
    start,
    version,
)
from tests.migrations.test_server_schema import migrated
from tests.servers import Database

# A short run takes samples.
_EVERY = pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])


@pytest.fixture
async def dying(server_db: Database) -> AsyncIterator[DyingStarts]:
    async with dying_starts(server_db) as starts:
        yield starts


@_EVERY
@pytest.mark.timeout(300)
async def test_a_kill_in_the_middle_of_creation_is_completed_by_the_next_start(
    server_db: Database, dying: DyingStarts, every: int
) -> None:
    await start(server_db)
    whole = await described(server_db)
    await drop_everything(server_db)
    change = 1
    while await dying.die(change):
        await start(server_db)
        assert await described(server_db) == whole, change
        assert await version(server_db) == [(HECTOR.head,)]
        await drop_everything(server_db)
        change += every
    assert change > len(HECTOR.names)


@_EVERY
@pytest.mark.timeout(300)
async def test_a_kill_in_the_middle_of_a_migration_is_completed_by_the_next_start(
    server_db: Database, dying: DyingStarts, every: int
) -> None:
    await start(server_db, LATER)
    whole = await described(server_db)
    change = 1
    while True:
        await drop_everything(server_db)
        await start(server_db)
        await fill(server_db)
        if not await dying.die(change, "later"):
            break
        await start(server_db, LATER)
        assert await described(server_db) == whole, change
        assert await version(server_db) == [(LATER.head,)]
        assert await server_db.run("SELECT id, title FROM sessions") == [("s", "u")]
        for table in ("messages", "turns"):
            assert await server_db.run(f"SELECT COUNT(*) FROM {table}") == [(1,)]
        change += every
    assert change > 14


async def test_a_kill_in_the_middle_of_the_first_upgrade_is_completed_by_the_next_start(
    server_db: Database, dying: DyingStarts
) -> None:
    await start(server_db)
    whole = await described(server_db)
    change = 1
    while True:
        await drop_everything(server_db)
        await migrated(server_db, "0001")
        await fill(server_db)
        if not await dying.die(change):
            break
        await start(server_db)
        assert await described(server_db) == whole, change
        assert await version(server_db) == [(HECTOR.head,)]
        assert await server_db.run("SELECT COUNT(*) FROM messages") == [(1,)]
        change += 1
    assert change > 2


@_EVERY
@pytest.mark.timeout(300)
async def test_a_kill_in_the_middle_of_starting_afresh_is_completed_by_the_next_start(
    server_db: Database, dying: DyingStarts, every: int
) -> None:
    await start(server_db)
    whole = await described(server_db)
    change = 1
    while True:
        await fill(server_db)
        await server_db.run("DROP TABLE messages", "DROP TABLE sessions")
        if not await dying.die(change):
            break
        await start(server_db)
        assert await described(server_db) == whole, change
        assert await server_db.run("SELECT COUNT(*) FROM turns") == [(0,)]
        change += every
    assert change > 2 * len(HECTOR.names) - 2


async def test_starts_that_come_at_once_make_the_schema_once(server_db: Database) -> None:
    for _ in range(5):
        await asyncio.gather(*(start(server_db) for _ in range(3)))
        assert await version(server_db) == [(HECTOR.head,)]
        await drop_everything(server_db)


async def test_starts_that_come_at_once_migrate_once(server_db: Database) -> None:
    await start(server_db)
    await fill(server_db)
    await asyncio.gather(*(start(server_db, LATER) for _ in range(3)))
    assert await version(server_db) == [(LATER.head,)]
    assert await server_db.run("SELECT title FROM sessions") == [("u",)]


async def test_whoever_starts_later_does_not_touch_what_the_first_has_written(server_db: Database) -> None:
    async def start_and_write(session: str) -> None:
        await start(server_db)
        await server_db.run(
            "INSERT INTO replicas (id, label, ttl_ms, counter, started_at)"
            f" VALUES ('{session}', '', 1, 1, '2026-01-01')"
        )

    await asyncio.gather(*(start_and_write(str(n)) for n in range(3)))
    assert await server_db.run("SELECT COUNT(*) FROM replicas") == [(3,)]


@asynccontextmanager
async def another_that_migrates(db: Database) -> AsyncIterator[None]:
    """Holds the lock of whoever changes the schema."""
    if db.driver == "postgres":
        async with connected_to_postgres(db) as connection:
            await connection.execute(f"SELECT pg_advisory_lock({postgres_migrate._LOCK})")
            yield
    else:
        async with connected_to_mysql(db) as connection, connection.cursor() as cursor:
            await cursor.execute(f"SELECT GET_LOCK('{mysql_migrate._lock_name(db.database)}', 0)")
            yield


_LONG = 0.6
"""Seconds."""


class Told(logging.Handler):
    """Of the first line of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.text: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def emit(self, record: logging.LogRecord) -> None:
        if not self.text.done():
            self.text.set_result(record.getMessage())


@pytest.fixture
async def told(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    monkeypatch.setattr(migrate, "_PATIENCE", _LONG)
    handler = Told()
    migrate.logger.addHandler(handler)
    yield handler
    migrate.logger.removeHandler(handler)


async def test_a_start_that_waits_for_another_says_so(server_db: Database, told: Told) -> None:
    """However long it takes."""
    async with another_that_migrates(server_db):
        starting = asyncio.ensure_future(start(server_db, statement_timeout=_LONG / 2))
        assert (await told.text).startswith(
            "session store 'main': another process creates or migrates its schema; waiting for "
        )
        assert not starting.done()
    await starting
    assert await version(server_db) == [(HECTOR.head,)]


async def test_a_start_that_is_stopped_while_it_waits_is_in_nobodys_way(
    server_db: Database, told: Told
) -> None:
    async with another_that_migrates(server_db):
        starting = asyncio.ensure_future(start(server_db))
        await told.text
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    await start(server_db)


async def test_a_start_whose_connection_is_lost_may_be_tried_again(server_db: Database, told: Told) -> None:
    async with another_that_migrates(server_db):
        starting = asyncio.ensure_future(start(server_db))
        await told.text
        if server_db.driver == "postgres":
            kill = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event = 'advisory'"
            )
        else:
            ((waiting,),) = await server_db.run(
                "SELECT id FROM information_schema.processlist WHERE db = DATABASE()"
                " AND info LIKE 'SELECT GET_LOCK%'",
                admin=True,
            )
            kill = f"KILL {waiting}"
        await server_db.run(kill, admin=True)
        with pytest.raises(StoreUnreachableError):
            await starting
    await start(server_db)


async def test_a_table_that_others_hold_is_not_waited_for_until_they_wait_behind_us(
    server_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_migrate, "_LONGEST_WAIT", "100ms")
    monkeypatch.setattr(mysql_migrate, "_LONGEST_WAIT", 1)
    await start(server_db)
    await fill(server_db)
    async with reading(server_db, "sessions"):
        with pytest.raises(
            StoreUnreachableError, match=r"its schema cannot be created or changed: .*[Ll]ock"
        ):
            await start(server_db, LATER)
    await start(server_db, LATER)
    assert await server_db.run("SELECT title FROM sessions") == [("u",)]


@asynccontextmanager
async def reading(db: Database, table: str) -> AsyncIterator[None]:
    """In a transaction that does not end."""
    if db.driver == "postgres":
        async with connected_to_postgres(db) as connection, connection.transaction():
            await connection.fetch(f"SELECT * FROM {table}")
            yield
    else:
        async with connected_to_mysql(db) as connection, connection.cursor() as cursor:
            await cursor.execute(f"SELECT * FROM {table}")
            yield


async def test_a_start_on_an_up_to_date_schema_waits_for_nobody(server_db: Database) -> None:
    await start(server_db)
    async with another_that_migrates(server_db):
        await start(server_db)


async def test_through_a_pooler_starts_make_and_migrate_the_schema_once(pgbouncer_db: Database) -> None:
    await asyncio.gather(*(start(pgbouncer_db) for _ in range(3)))
    await fill(pgbouncer_db)
    await asyncio.gather(*(start(pgbouncer_db, LATER) for _ in range(3)))
    assert await version(pgbouncer_db) == [(LATER.head,)]
    assert await pgbouncer_db.run("SELECT title FROM sessions") == [("u",)]


async def test_through_a_pooler_starts_leave_nothing_on_the_server(pgbouncer_db: Database) -> None:
    """Where others would come across it."""
    await start(pgbouncer_db)
    await start(pgbouncer_db, LATER)
    left = await pgbouncer_db.run(
        "SELECT name FROM pg_prepared_statements WHERE name <> ''"
        " UNION ALL SELECT current_setting('search_path') UNION ALL SELECT current_setting('lock_timeout')"
        " UNION ALL SELECT objid::text FROM pg_locks JOIN pg_database d ON d.oid = database"
        " WHERE locktype = 'advisory' AND datname = current_database()"
    )
    assert left == [('"$user", public',), ("0",)]


async def test_a_start_on_an_up_to_date_schema_imports_nothing_for_migrations(server_db: Database) -> None:
    await start(server_db)
    program = """
import asyncio, base64, pickle, sys
from tests.migrations.starts import start
asyncio.run(start(pickle.loads(base64.b64decode(sys.argv[1]))))
assert not {"alembic", "greenlet", "sqlalchemy.ext.asyncio"} & set(sys.modules)
"""
    argument = base64.b64encode(pickle.dumps(server_db)).decode()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, argument, cwd=Path(__file__).parents[2]
    )
    assert await process.wait() == 0
