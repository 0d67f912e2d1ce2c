"""From settings to an open session store, its schema in place."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, assert_never

from hector.domain.errors import ServerFullError, StorageError, StoreOpenError
from hector.storage.extras import ServerKind, missing_driver
from hector.storage.locks import ReplicaLocks
from hector.storage.migrate import upgrade_sqlite
from hector.storage.place import check_place
from hector.storage.server.dedicated import Dedicated
from hector.storage.server.driver import Connection, ServerDriver
from hector.storage.server.pool import Pool
from hector.storage.server.presence import Presence, ServerLocks
from hector.storage.server.time_limits import lock_timeout
from hector.storage.settings import ServerSettings
from hector.storage.signals import NoSignals, Signals
from hector.storage.sqlite import MemoryDriver, SqliteDriver, SqliteSettings, connect, translated
from hector.storage.store import SqlSessionStore

Connect: TypeAlias = Callable[[], Awaitable[Connection]]

_SCHEMA_TIMEOUT = 3600.0
"""Seconds that one statement of a migration may take."""


async def open_sqlite(name: str, settings: SqliteSettings) -> SqlSessionStore:
    """Open a database file, which is made if missing, with its folder, and bring its schema up to date.

    Raises `StoreOpenError`.
    """
    # Connections are opened later too, when the working directory may be another; and two names of one file
    # must lead to the same locks.
    settings = replace(settings, path=settings.path.resolve(), store=name)
    preparing = asyncio.ensure_future(asyncio.to_thread(_prepare, settings))
    try:
        connection = await asyncio.shield(preparing)
    except asyncio.CancelledError:
        # The thread goes on.
        preparing.add_done_callback(_close_unused)
        raise
    except (OSError, StorageError) as error:
        raise StoreOpenError(name, f"{settings.path}: {_why(error)}") from error
    driver = SqliteDriver(settings, connection)
    driver.start()
    return SqlSessionStore(driver, files=ReplicaLocks(settings.path))


async def open_server(driver: ServerKind, settings: ServerSettings) -> SqlSessionStore:
    """Connect to a database server, and bring the schema up to date.

    Raises `StoreOpenError`; where a later try may succeed, `StoreUnreachableError`.
    """
    if text := missing_driver(driver):
        raise StoreOpenError(settings.store, text)
    # Creating and migrating may take longer than a statement of a turn may.
    patient = replace(settings, statement_timeout=_SCHEMA_TIMEOUT)
    # Each of these imports a library that the other does not need.
    match driver:
        case "postgres":
            from hector.storage.postgres import connection as postgres  # noqa: PLC0415
            from hector.storage.postgres.presence import PostgresLocks  # noqa: PLC0415
            from hector.storage.postgres.signals import PostgresSignals  # noqa: PLC0415

            connect_to_postgres = await postgres.prepare(settings, patient)
            connect: Connect = connect_to_postgres
            # Not behind a pooler, where each transaction may run on another of the server's sessions.
            own = Dedicated(settings.store, connect_to_postgres, fit=lambda made: made.autocommits)
            dedicated: Dedicated[Any] = own
            locks: ServerLocks = PostgresLocks()
            signals: Signals = PostgresSignals(own)
        case "mysql":
            from hector.storage.mysql import connection as mysql  # noqa: PLC0415
            from hector.storage.mysql.presence import MySqlLocks  # noqa: PLC0415

            connect = await mysql.prepare(settings, patient)
            dedicated = Dedicated(settings.store, connect)
            locks, signals = MySqlLocks(), NoSignals()
        case other:
            assert_never(other)
    pool: Pool[Connection] = Pool(
        settings.store,
        connect,
        full=ServerFullError,
        max_conns=settings.max_conns,
        max_idle=settings.max_idle,
        lifetime=settings.lifetime,
        timeout=settings.connect_timeout,
    )
    runs = ServerDriver(settings.store, pool, fuses=driver == "postgres", lock_timeout=lock_timeout(settings))
    return SqlSessionStore(runs, presence=Presence(settings.store, dedicated, locks, runs), signals=signals)


def open_memory() -> SqlSessionStore:
    """A store that lives and dies with this process. It belongs to the calling thread."""
    driver = MemoryDriver()
    upgrade_sqlite(driver.connection)
    return SqlSessionStore(driver)


def _close_unused(preparing: asyncio.Future[sqlite3.Connection]) -> None:
    if not preparing.cancelled() and not preparing.exception():
        preparing.result().close()


def _prepare(settings: SqliteSettings) -> sqlite3.Connection:
    check_place(settings.path)
    folder = settings.path.parent
    missing = [path for path in (settings.path, folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with _sole_in(folder), translated():
        connection = connect(settings)
        try:
            upgrade_sqlite(connection, auto_migrate=settings.auto_migrate)
        except BaseException:
            connection.close()
            raise
    for made in missing:
        _sync(made.parent)  # the entry that names it must be on the disk, too
    return connection


@contextmanager
def _sole_in(folder: Path) -> Iterator[None]:
    """One process at a time: of two that make a new file a WAL database at once, SQLite refuses one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Not every network file system has it, and it matters at the first start only.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: OSError | StorageError) -> str:
    if isinstance(error, OSError):
        return f"its folder cannot be used: {error.strerror or error}"
    return str(error)
