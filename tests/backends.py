"""Where a session store may live, as the suites that run on all of them see it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from hector.storage.opening import open_memory, open_server, open_sqlite
from hector.storage.sqlite import SqliteSettings
from hector.storage.store import SqlSessionStore
from hector.storage.tables import metadata
from tests.servers import Database, DatabaseServer, PgBouncer

BackendName: TypeAlias = Literal["memory", "sqlite", "postgres", "mysql", "pgbouncer"]
BACKENDS: tuple[BackendName, ...] = ("memory", "sqlite", "postgres", "mysql")

OpenStore: TypeAlias = Callable[[], Awaitable[SqlSessionStore]]
"""Opens the store of one test; any number of times, but in memory each is another."""

_WITH_SCHEMA: set[str] = set()
"""The databases of this worker that hold our tables."""


@dataclass(frozen=True, slots=True)
class Backend:
    name: BackendName
    folder: Path
    server: DatabaseServer | None = None
    database: Database | None = None
    """Shared by the tests of a worker, one after the other."""

    async def clear(self) -> None:
        """Leave nothing of the test before."""
        if self.server and self.database:
            if self.database.database in _WITH_SCHEMA:
                await self.server.empty(self.database, list(metadata.tables))
            else:
                await (await self.open()).close()
                _WITH_SCHEMA.add(self.database.database)

    async def open(self) -> SqlSessionStore:
        if self.name == "memory":
            return open_memory()
        if self.database:
            return await open_server(self.database.driver, self.database.settings(max_conns=8))
        # NORMAL differs in the fsync alone, which no test here can see.
        return await open_sqlite("main", SqliteSettings(self.folder / "sessions.db", "normal"))


def backend_for(request: pytest.FixtureRequest, folder: Path) -> Backend:
    """The one that the fixture's parameter names."""
    name: BackendName = request.param
    if name in ("memory", "sqlite"):
        return Backend(name, folder)
    kind = "postgres" if name == "pgbouncer" else name
    server: DatabaseServer = request.getfixturevalue(f"{kind}_server")
    database: Database = request.getfixturevalue(f"worker_{kind}_db")
    if name == "pgbouncer":
        pooler: PgBouncer = request.getfixturevalue("pgbouncer")
        database = pooler.before(database)
    return Backend(name, folder, server, database)
