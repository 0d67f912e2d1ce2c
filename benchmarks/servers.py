"""A turn on PostgreSQL and on MariaDB, with their default durability, beside the driver alone."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from benchmarks.floors import Floor, MariaDbFloor, PostgresFloor
from benchmarks.table import median, show
from benchmarks.turns import (
    CONTENT,
    ROUNDS,
    SESSIONS,
    SIZES,
    TEXT,
    StoreTurns,
    at_once,
    sequential,
    time_turns,
)
from hector.storage.opening import open_server
from hector.storage.server.driver import ServerDriver
from hector.storage.settings import Tls
from hector.storage.store import SqlSessionStore
from tests.databases.proxy import proxy_to
from tests.servers import Database, running

CONNECTIONS = 20
"""As many as `max_conns` has by default, for both."""
DELAY = 0.5
"""Milliseconds that a network adds to a round trip; within one data centre it is that or less."""
_COUNTED = 200

_FILL = """
INSERT INTO messages (agent_id, user_id, session_id, seq, turn_id, retry, role, content, tokens, created_at)
SELECT 'a', 'u', '{session}', seq, 't', 0, 1 + (seq + 1) % 2, '{content}', 80, {now} FROM {numbers}"""
_SESSION = """
INSERT INTO sessions (id, agent_id, user_id, metadata, created_at, updated_at, incarnation, last_seq, next_ticket,
  waiting, lease_epoch, summarized_through_seq, indexed_through_seq)
VALUES ('{session}', 'a', 'u', '{{}}', {now}, {now}, 'x', {size}, 0, 0, 0, 0, 0)"""


async def postgres() -> None:
    async with running("postgres", durable=True) as servers:
        db = await servers["postgres"].create_database()
        await _measure(
            "PostgreSQL",
            db,
            lambda db: PostgresFloor().open(db, f'"{db.user}"', CONNECTIONS),
            now="timezone('utc', clock_timestamp())",
            numbers="generate_series(1, {size}) AS seq",
            syncs="SELECT wal_sync FROM pg_stat_wal",
            size=f"SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
            f" WHERE relkind = 'r' AND relnamespace = '{db.user}'::regnamespace",
        )


async def mariadb() -> None:
    async with running("mysql", durable=True) as servers:
        db = await servers["mysql"].create_database()
        await _measure(
            "MariaDB",
            db,
            lambda db: MariaDbFloor().open(db, CONNECTIONS),
            now="utc_timestamp(6)",
            numbers="seq_1_to_{size}",
            syncs="SELECT variable_value FROM information_schema.global_status"
            " WHERE variable_name = 'Innodb_data_fsyncs'",
            size=f"SELECT sum(data_length + index_length) FROM information_schema.tables"
            f" WHERE table_schema = '{db.database}'",
        )


async def _measure(
    title: str,
    db: Database,
    open_floor: Callable[[Database], Awaitable[Floor]],
    *,
    now: str,
    numbers: str,
    syncs: str,
    size: str,
) -> None:
    store = await open_bench(db)
    await _fill(db, now, numbers)
    ours = StoreTurns(store)
    await ours.register()
    floor = await open_floor(db)
    await sequential(f"{title}: one turn, ms", ours.turn, floor.turn)
    await at_once(f"{title}: many sessions, {CONNECTIONS} connections", ours.turn, floor.turn)
    assert isinstance(store._driver, ServerDriver)  # noqa: SLF001  # to look inside is its purpose
    pool = store._driver.pool  # noqa: SLF001
    print(
        f"\npool: {pool.waited} waits of {pool.wait_seconds / max(1, pool.waited) * 1000:.1f} ms on average,"
        f" {pool.size} connections"
    )
    await ours.close()
    print(f"fsyncs of the server for a turn: {await _syncs(db, syncs):.1f}")
    count = await _number(db, f"SELECT count(*) FROM {_qualified(db)}messages")
    print(
        f"on disk: {await _number(db, size) / count:.0f} bytes a message of {len(TEXT)} bytes,"
        " all tables and indexes"
    )
    print(f"round trips of a turn: {await _round_trips(db):g}")
    await _over_a_network(title, db, open_floor, floor)
    await floor.close()


async def _syncs(db: Database, query: str) -> float:
    before = await _number(db, query)
    turns = StoreTurns(await open_bench(db))
    await turns.register()
    for _ in range(_COUNTED):
        await turns.turn("size-1000")
    # PostgreSQL's sessions tell what they counted when they end.
    await turns.close()
    return (await _number(db, query) - before) / _COUNTED


async def _over_a_network(
    title: str, db: Database, open_floor: Callable[[Database], Awaitable[Floor]], near_floor: Floor
) -> None:
    near = StoreTurns(await open_bench(db))
    await near.register()
    async with _delayed(db) as far_db:
        far = StoreTurns(await open_bench(far_db))
        await far.register()
        far_floor = await open_floor(far_db)
        turns = (near.turn, far.turn, near_floor.turn, far_floor.turn)
        samples: list[list[float]] = [[] for _ in turns]
        for _ in range(ROUNDS):
            for number, turn in enumerate(turns):
                samples[number] += (await time_turns(turn, "size-1000", _COUNTED // ROUNDS))[0]
        await far.close()
        await far_floor.close()
    await near.close()
    here, there, raw_here, raw_there = map(median, samples)
    rows = [("ours", here, there, there - here), ("raw", raw_here, raw_there, raw_there - raw_here)]
    show(f"{title}: {DELAY} ms of network, one turn, ms", ("", "beside it", "over the network", "more"), rows)


async def _round_trips(db: Database) -> float:
    async with proxy_to(db.host, db.port) as proxy:
        store = await open_server(db.driver, db.settings(port=proxy.port, tls=Tls("disable")))
        turns = StoreTurns(store)
        await turns.register()
        await turns.turn("size-1000")
        proxy.arm()
        for _ in range(_COUNTED):
            await turns.turn("size-1000")
        counted = proxy.requests / _COUNTED
        await turns.close()
        return counted


@asynccontextmanager
async def _delayed(db: Database) -> AsyncIterator[Database]:
    """The database as it is seen from afar."""
    arguments = (sys.executable, "-m", "benchmarks.delay", db.host, str(db.port), str(DELAY / 1000))
    process = await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=PIPE)
    assert process.stdout
    try:
        yield replace(db, port=int(await process.stdout.readline()))
    finally:
        process.kill()
        await process.wait()


async def open_bench(db: Database) -> SqlSessionStore:
    return await open_server(
        db.driver, db.settings(max_conns=CONNECTIONS, max_idle=CONNECTIONS, tls=Tls("disable"))
    )


async def _fill(db: Database, now: str, numbers: str) -> None:
    """Sessions of each size, and the ones that run at once."""
    many = (f"many-{number}" for number in range(max(SESSIONS)))
    statements = [_SESSION.format(session=session, size=0, now=now) for session in many]
    for size in SIZES:
        statements += filling(f"size-{size}", size, now, numbers.format(size=size))
    # Both servers do so by themselves, some time after so many rows have come.
    statements.append("ANALYZE" if db.driver == "postgres" else "ANALYZE TABLE sessions, messages")
    await db.run(*statements)


def filling(session: str, size: int, now: str, numbers: str) -> list[str]:
    """Statements that make a session of so many messages."""
    return [
        _SESSION.format(session=session, size=size, now=now),
        _FILL.format(session=session, content=CONTENT, now=now, numbers=numbers),
    ]


async def _number(db: Database, query: str) -> float:
    ((value,),) = await db.run(query)
    return float(value)


def _qualified(db: Database) -> str:
    return f'"{db.user}".' if db.driver == "postgres" else ""
