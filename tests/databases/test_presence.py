"""The connection that beats, and its lock, on real servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from sqlalchemy import text

from hector.domain.replicas import ReplicaRow
from hector.runtime.watch import Look, Watch
from hector.storage.grants import grants
from hector.storage.mysql.connection import MySqlConnection
from hector.storage.opening import open_server
from hector.storage.operations import Statement, Step
from hector.storage.postgres.connection import PostgresConnection
from hector.storage.settings import Tls
from hector.storage.store import SqlSessionStore
from tests.databases.proxy import proxy_to
from tests.servers import Database, DatabaseServer, PgBouncer

TTL = 15.0
MISSED = TTL / 2
"""Seconds after which a replica whose lock is free has missed a beat."""

Open: TypeAlias = Callable[..., Awaitable[SqlSessionStore]]


@pytest.fixture
async def opening() -> AsyncIterator[Open]:
    """Opens stores, as many as are wanted: each stands for a process."""
    stores: list[SqlSessionStore] = []

    async def opened(db: Database, **settings: Any) -> SqlSessionStore:
        stores.append(await open_server(db.driver, db.settings(**settings)))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


async def join(store: SqlSessionStore, replica_id: str, *, ttl: float = TTL) -> None:
    await store.register(ReplicaRow(replica_id, "", ttl, 0))
    assert await store.beat(replica_id)


class Observer:
    """Another process, whose clock the test sets."""

    def __init__(self, store: SqlSessionStore) -> None:
        assert store.locks
        self._store, self._locks = store, store.locks
        self._watch = Watch(TTL / 2, store.locks.stillness)

    async def dead(self, at: float) -> list[str]:
        rows = await self._store.replicas()
        freed = await self._locks.freed(rows)
        return [row.id for row in self._watch.judge(Look(at, at, rows, freed)).dead]

    async def row(self, replica_id: str) -> ReplicaRow:
        return next(row for row in await self._store.replicas() if row.id == replica_id)

    async def until_freed(self, replica_id: str) -> None:
        while replica_id not in await self._locks.freed(await self._store.replicas()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nobody tells


def connection(store: SqlSessionStore) -> Any:
    """The one that beats, which exists."""
    assert store._presence
    found = store._presence.connection._connection
    assert found is not None
    return found


async def cut_all(db: Database) -> None:
    """The server ends every connection of the user."""
    if db.driver == "postgres":
        query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{db.user}'"
        await db.run(query, admin=True)
    else:
        await db.run(f"KILL CONNECTION USER '{db.user}'", admin=True)


# --- deaths


async def test_a_death_is_noticed_when_a_beat_was_missed(opening: Open, server_db: Database) -> None:
    one, observer = await opening(server_db), Observer(await opening(server_db))
    await join(one, "one")
    assert await observer.dead(0.0) == []
    assert await observer.dead(MISSED) == [], "it may be late, but it is connected"
    # As SIGKILL does.
    connection(one).abort()
    await observer.until_freed("one")
    assert await observer.dead(MISSED) == ["one"]


async def test_a_replica_whose_connection_was_cut_takes_a_lock_again_before_it_beats(
    opening: Open, server_db: Database
) -> None:
    one, observer = await opening(server_db), Observer(await opening(server_db))
    await join(one, "one")
    before = await observer.row("one")
    assert await observer.dead(0.0) == []
    await cut_all(server_db)
    await observer.until_freed("one")
    assert await one.beat("one")
    after = await observer.row("one")
    assert (after.counter > before.counter, after.lock) != (True, before.lock)
    assert after.lock
    assert await observer.dead(MISSED) == []
    assert await observer.dead(MISSED + 5) == [], "its new lock is not free"


async def test_a_stopped_beat_with_a_held_lock_is_judged_by_the_ttl_alone(
    opening: Open, server_db: Database
) -> None:
    one, observer = await opening(server_db), Observer(await opening(server_db))
    await join(one, "one")
    for at in (0.0, 5.0, 10.0, TTL - 0.1):
        assert await observer.dead(at) == []
    assert await observer.dead(TTL) == ["one"]


async def test_without_a_connection_of_its_own_a_replica_beats_and_is_judged_by_the_ttl_alone(
    opening: Open, server_db: Database
) -> None:
    one, observer = await opening(server_db), Observer(await opening(server_db))
    await join(one, "one")
    # As when the server takes no more.
    assert one._presence
    dedicated = one._presence.connection
    dedicated._over = True
    connection(one).abort()
    await observer.until_freed("one")
    assert await one.beat("one")
    row = await observer.row("one")
    assert (row.counter, row.lock) == (2, None)
    for at in (0.0, 5.0, 10.0, TTL - 0.1):
        assert await observer.dead(at) == []
    assert await observer.dead(TTL) == ["one"]
    dedicated._over = False
    assert await one.beat("one")
    assert (await observer.row("one")).lock, "it has one again"


async def test_on_a_server_that_is_full_beats_go_through_the_pool(
    database_server: DatabaseServer, opening: Open
) -> None:
    narrow = await database_server.create_database(max_connections=1)
    store = await opening(narrow, max_conns=1, max_idle=1)
    await join(store, "one")
    (row,) = await store.replicas()
    assert (row.counter, row.lock) == (1, None)
    await store.close()
    await database_server.drop_database(narrow)


async def test_a_lock_of_another_server_is_not_taken_for_free(opening: Open, server_db: Database) -> None:
    """Of one that was started again, or of another in its cluster: who held it may hold another there."""
    one, observer = await opening(server_db), Observer(await opening(server_db))
    await join(one, "one")
    (row,) = await one.replicas()
    assert row.lock
    elsewhere = f"{int(row.lock.partition('.')[0], 16) + 1:x}.0123456789abcdef"
    await server_db.run(f"UPDATE replicas SET lock_name = '{elsewhere}'")
    assert await observer.dead(0.0) == []
    assert await observer.dead(MISSED) == []


async def test_a_restart_of_the_server_kills_nobody(own_server: DatabaseServer, opening: Open) -> None:
    db = await own_server.create_database()
    one, other = await opening(db), await opening(db)
    await join(one, "one")
    observer = Observer(other)
    assert await observer.dead(0.0) == []
    await own_server.kill()
    await own_server.start()
    if db.driver == "postgres":
        assert await observer.dead(MISSED) == [], "no lock of before is looked at"
    assert await one.beat("one")
    assert (await observer.row("one")).lock
    assert await observer.dead(MISSED + 5) == []


async def test_a_lock_that_is_gone_while_its_connection_lives_is_noticed_by_the_next_beat(
    opening: Open, server_db: Database
) -> None:
    """As when something before the server, which keeps fewer connections there, gives us another of them."""
    one = await opening(server_db)
    await join(one, "one")
    release = {
        PostgresConnection: "SELECT pg_advisory_unlock_all()",
        MySqlConnection: "SELECT RELEASE_ALL_LOCKS()",
    }[type(connection(one))]
    await connection(one).run([Step(Statement(text(release)), {})])
    assert await one.beat("one")
    assert [(row.counter, row.lock) for row in await one.replicas()] == [(2, None)]
    assert await one.beat("one")
    (row,) = await one.replicas()
    assert row.lock


# --- the connection


@asynccontextmanager
async def behind_a_proxy(db: Database, opening: Open) -> AsyncIterator[tuple[Any, SqlSessionStore]]:
    async with proxy_to(db.host, db.port) as proxy:
        yield proxy, await opening(db, port=proxy.port, tls=Tls("disable"))


async def test_a_beat_whose_connection_cannot_be_made_again_is_no_failure(
    opening: Open, server_db: Database
) -> None:
    async with behind_a_proxy(server_db, opening) as (proxy, store):
        await join(store, "one")
        await store.replicas()
        connection(store).abort()
        proxy.refuses = True  # what is open stays open
        assert await store.beat("one")
        assert [(row.counter, row.lock) for row in await store.replicas()] == [(2, None)]
        proxy.refuses = False
        assert await store.beat("one")
        (row,) = await store.replicas()
        assert row.lock


async def test_a_beat_does_not_wait_long_for_a_connection_that_is_stuck(
    opening: Open, server_db: Database
) -> None:
    store = await opening(server_db)
    await join(store, "one", ttl=0.6)
    assert store._presence
    dedicated = store._presence.connection
    async with dedicated._in_use:  # as a statement without an answer would
        assert await store.beat("one")
    assert [(row.counter, row.lock) for row in await store.replicas()] == [(2, None)]


async def test_no_connection_is_made_before_it_is_needed(opening: Open, server_db: Database) -> None:
    store = await opening(server_db)
    await store.register(ReplicaRow("one", "", TTL, 0))
    assert await store.replicas()
    assert store._presence
    assert store._presence.connection._connection is None


async def test_a_close_in_the_middle_of_connecting_leaves_nothing(opening: Open, server_db: Database) -> None:
    store = await opening(server_db)
    await store.register(ReplicaRow("one", "", TTL, 0))
    beating = asyncio.ensure_future(store.beat("one"))
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(beating, return_exceptions=True)
    who = {
        "postgres": f"SELECT 1 FROM pg_stat_activity WHERE usename = '{server_db.user}'",
        "mysql": f"SELECT 1 FROM information_schema.processlist WHERE user = '{server_db.user}'",
    }[server_db.driver]
    while await server_db.run(who, admin=True):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # the server takes a moment to notice


async def test_the_printed_grants_are_enough_to_hold_a_lock_and_to_look(
    opening: Open, server_db: Database, database_server: DatabaseServer
) -> None:
    await opening(server_db)
    least = await database_server.add_user(server_db)
    await server_db.run(
        *grants(least.driver, least.user, database=server_db.database, schema=server_db.user), admin=True
    )
    schema = server_db.user if server_db.driver == "postgres" else None
    one, observer = await opening(least, schema=schema), Observer(await opening(server_db))
    other = Observer(await opening(least, schema=schema))
    await join(one, "one")
    assert (await observer.row("one")).lock
    connection(one).abort()
    await observer.until_freed("one")
    await other.until_freed("one")


async def test_behind_a_pooler_locks_of_others_are_seen(
    postgres_db: Database, pgbouncer: PgBouncer, opening: Open
) -> None:
    one, observer = await opening(postgres_db), Observer(await opening(pgbouncer.before(postgres_db)))
    await join(one, "one")
    assert await observer.dead(0.0) == []
    connection(one).abort()
    await observer.until_freed("one")
    assert await observer.dead(MISSED) == ["one"]
