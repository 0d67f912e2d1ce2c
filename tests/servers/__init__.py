"""Real database servers for tests: PostgreSQL, PgBouncer and MariaDB, without a trace when they end.

Inside pytest ask for the fixtures of tests/conftest.py; outside, `async with running() as servers`.
`python -m tests.servers` runs them until Ctrl-C.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.servers.control import Control
from tests.servers.database import Database, Driver, TlsFiles
from tests.servers.mariadb import MariaDbServer
from tests.servers.options import Options
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.process import StartError
from tests.servers.server import Access, DatabaseServer

__all__ = [
    "SERVERS",
    "Access",
    "Control",
    "Database",
    "DatabaseServer",
    "Driver",
    "MariaDbServer",
    "Options",
    "PgBouncer",
    "PostgresServer",
    "StartError",
    "TlsFiles",
    "running",
]

SERVERS: Mapping[Driver, type[DatabaseServer]] = {"postgres": PostgresServer, "mysql": MariaDbServer}


@asynccontextmanager
async def running(*drivers: Driver, durable: bool = False) -> AsyncIterator[Mapping[Driver, DatabaseServer]]:
    """Servers of one's own, all if none is named; they end with this context, or with this process.

    `durable` leaves them the durability that they have by default, for figures that are to mean something.
    Raises `StartError`.
    """
    control = await asyncio.to_thread(Control.start, on_disk=durable)
    try:
        yield {
            driver: await asyncio.to_thread(SERVERS[driver], control, None, Options(durable=durable))
            for driver in drivers or SERVERS
        }
    finally:
        await asyncio.to_thread(control.leave)
