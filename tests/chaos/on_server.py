"""A database on PostgreSQL or MariaDB, which each process reaches by a link of its own."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from asyncmy.errors import MySQLError

from tests.chaos.database import KEYS, TABLES, Snapshot, assemble, queries
from tests.chaos.history import Place
from tests.chaos.network import Link
from tests.chaos.stores import UnreadableError, Way
from tests.servers import Database, DatabaseServer, Driver, running
from tests.servers.database import Execute

MAX_CONNS = 4
"""Of a process, for up to ten clients: some wait for one, and the heartbeat with them."""
_GONE_WITHIN = 30.0
"""Seconds in which a server has noticed that a client is dead, whatever its last statement waits for."""
_CROWDED_FOR = 10.0
"""Seconds in which a server has noticed that a client has left; one that waits for a lock does not look."""
_NO_SUCH_THREAD = 1094
_DRIVER_ERRORS = (
    OSError,
    MySQLError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_LONGEST_TRANSACTION = 4
"""Seconds, when nobody is stopped. A server would end one that is idle for ten."""


@dataclass(frozen=True, slots=True)
class _Dialect:
    snapshot: Sequence[str]
    """Begins a transaction that sees one state of the database."""
    sessions: str
    """Of each connection the server's number, the user and the client's address, which ends with its port."""
    kill: str
    transactions: str
    """The numbers of the connections that have an old one, and what is known of it."""


_DIALECTS: Mapping[Driver, _Dialect] = {
    "postgres": _Dialect(
        ["BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"],
        "SELECT pid, usename, client_port::text FROM pg_stat_activity",
        "SELECT pg_terminate_backend({number})",
        "SELECT pid, state, wait_event, clock_timestamp() - xact_start, query FROM pg_stat_activity"
        " WHERE xact_start < clock_timestamp() - interval '{seconds} s'",
    ),
    "mysql": _Dialect(
        [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ],
        # Not the table of the information schema, which is a file each time it is asked.
        "SHOW PROCESSLIST",
        "KILL CONNECTION {number}",
        "SELECT trx_mysql_thread_id, trx_state, trx_started, NOW(), trx_query, trx_rows_modified"
        " FROM information_schema.innodb_trx WHERE trx_started < NOW() - INTERVAL {seconds} SECOND",
    ),
}


class OnServer:
    """Implements `stores.Store`."""

    def __init__(self, server: DatabaseServer, db: Database) -> None:
        """The server is its own: it may be killed, and others would notice."""
        self._server = server
        self._db = db
        self._dialect = _DIALECTS[db.driver]
        self._links: dict[Link, int] = {}
        """And how many processes share each."""
        self._down = False

    async def way(self, processes: int = 1) -> Way:
        link = await Link.to(self._db.host, self._db.port)
        self._links[link] = processes
        return Way(self._db.section(port=link.port, max_conns=MAX_CONNS, ssl_mode="disable"), link)

    async def until_gone(self, way: Way) -> bool:
        # A statement that waits for a lock is still executed, and a transaction in one statement committed.
        link = self._link(way)
        deadline = time.monotonic() + _GONE_WITHIN
        while True:
            with contextlib.suppress(UnreadableError):
                if not self._connections(link, set(await self._sessions())):
                    break
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        await link.close()
        del self._links[link]
        return True

    async def read(self, only: Collection[Place] | None = None) -> Snapshot:
        since = time.monotonic()
        async with self._snapshot() as execute:
            found = [await execute(query) for query in queries(only)]
        return assemble(since, time.monotonic(), found)

    async def close(self) -> None:
        for link in self._links:
            await link.close()

    # --- faults

    async def cut_connections(self, way: Way) -> None:
        """The server ends those of one process."""
        ports = self._link(way).ports
        with contextlib.suppress(UnreadableError):
            for port, number in (await self._sessions()).items():
                if port in ports:
                    await self._kill(number)

    async def crash(self) -> None:
        """The server's processes are killed, and it is started again."""
        self._down = True
        await self._server.kill()
        await self._server.start()
        self._down = False

    async def freeze(self, seconds: float) -> None:
        """The server hangs."""
        await self._server.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._server.thaw()

    # --- what may be wrong

    async def crowd(self) -> list[str]:
        deadline = time.monotonic() + _CROWDED_FOR
        while found := await self._crowds():
            if time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.1)
        return []

    async def faults(self) -> list[str]:
        async with self._snapshot() as execute:
            counts = {what: (await execute(query))[0][0] for what, query in KEYS.items()}
        found = [f"{count} {what}" for what, count in counts.items() if count]
        return [*found, *await self._old_transactions()]

    async def left_behind(self) -> list[str]:
        deadline = time.monotonic() + _CROWDED_FOR
        while left := await self._sessions():
            if time.monotonic() > deadline:
                return [f"a clean end left {len(left)} connections"]
            await asyncio.sleep(0.05)
        async with self._db.connected() as execute:
            replicas = await execute("SELECT id FROM replicas")
        return [f"a clean end left {len(replicas)} replicas"] if replicas else []

    async def keep(self, folder: Path) -> None:
        shutil.copy(self._server.address.log, folder / "database.log")
        async with self._snapshot() as execute:
            for table in TABLES:
                rows = await execute(f"SELECT * FROM {table}")
                lines = [json.dumps(row, default=str, ensure_ascii=False) for row in rows]
                (folder / f"{table}.txt").write_text("\n".join(lines))

    def _link(self, way: Way) -> Link:
        assert way.link, "whoever reaches a server has one"
        return way.link

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Execute]:
        # The user's own: PostgreSQL may have its tables where only this one looks for them.
        async with self._readable(), self._db.connected() as execute:
            for statement in self._dialect.snapshot:
                await execute(statement)
            yield execute

    async def _sessions(self) -> dict[int, int]:
        """The numbers of our user's connections, by the client's port."""
        rows = await self._ask(self._dialect.sessions)
        return {
            int(address.rpartition(":")[2]): number
            for number, user, address, *_ in rows
            if user == self._db.user
        }

    def _connections(self, link: Link, taken: set[int]) -> set[int]:
        """The ports of those that the server has, also when the network has lost them."""
        # In a long run the system gives a port again, to others.
        return (link.ports_seen & taken).difference(
            *(other.ports for other in self._links if other is not link)
        )

    async def _crowds(self) -> list[str]:
        taken: set[int] = set()
        with contextlib.suppress(UnreadableError):
            taken.update(await self._sessions())
        counts = [
            (len(self._connections(link, taken)), processes * MAX_CONNS)
            for link, processes in self._links.items()
        ]
        return [f"a server has {count} connections of {most}" for count, most in counts if count > most]

    async def _old_transactions(self) -> list[str]:
        # One that an outage held up may be about to end.
        deadline = time.monotonic() + _LONGEST_TRANSACTION
        while True:
            # In this order: a number may be given again.
            old = await self._ask(self._dialect.transactions.format(seconds=_LONGEST_TRANSACTION))
            sessions = set((await self._sessions()).values())
            found = [f"a transaction stays open: {row}" for row in old if row[0] in sessions]
            if not found or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.1)

    async def _kill(self, number: int) -> None:
        try:
            await self._ask(self._dialect.kill.format(number=number))
        except MySQLError as error:
            if error.args[0] != _NO_SUCH_THREAD:  # it has left meanwhile
                raise

    async def _ask(self, question: str) -> list[tuple[Any, ...]]:
        async with self._readable():
            return await self._db.run(question, admin=True)

    @asynccontextmanager
    async def _readable(self) -> AsyncIterator[None]:
        down = self._down
        try:
            yield
        except _DRIVER_ERRORS as error:
            if not (down or self._down):
                raise
            raise UnreadableError("the server is down") from error


@asynccontextmanager
async def database_of_its_own(driver: Driver) -> AsyncIterator[OnServer]:
    """Empty, on a server that is started for it."""
    async with running(driver) as servers:
        server = servers[driver]
        store = OnServer(server, await server.create_database())
        try:
            yield store
        finally:
            await store.close()
