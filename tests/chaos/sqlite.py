"""An SQLite file, read with the standard library alone."""

import asyncio
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from tests.chaos.database import KEYS, Snapshot, assemble, queries
from tests.chaos.history import Place
from tests.chaos.stores import UnreadableError, Way


class SqliteFile:
    """Implements `stores.Store`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def way(self, processes: int = 1) -> Way:
        return Way({"driver": "sqlite", "database": str(self._path)})

    async def until_gone(self, way: Way) -> bool:
        return True  # what a dead process had not written is gone with it

    async def read(self, only: Collection[Place] | None = None) -> Snapshot:
        try:
            return await asyncio.to_thread(self._read, only)
        except sqlite3.OperationalError as error:
            # Nobody has the file open, and its log is to be read first.
            raise UnreadableError(str(error)) from error

    async def crowd(self) -> list[str]:
        return []

    async def faults(self) -> list[str]:
        return await asyncio.to_thread(self._faults)

    async def left_behind(self) -> list[str]:
        left = [path.name for path in self._path.parent.glob(f"{self._path.name}-[ws]*")]
        return [f"a clean end left {left}"] if left else []

    async def keep(self, folder: Path) -> None:
        """It is there."""

    def _read(self, only: Collection[Place] | None) -> Snapshot:
        since = time.monotonic()
        with closing(self._open()) as connection:
            connection.execute("BEGIN")
            found = [connection.execute(query).fetchall() for query in queries(only)]
        return assemble(since, time.monotonic(), found)

    def _faults(self) -> list[str]:
        with closing(self._open()) as connection:
            found = [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
            counts = {what: connection.execute(query).fetchone()[0] for what, query in KEYS.items()}
        return found + [f"{count} {what}" for what, count in counts.items() if count]

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)
