"""What a start would find in a database, seen without creating or changing anything there."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

from sqlalchemy import create_engine, pool
from sqlalchemy.exc import DBAPIError

from hector.domain.errors import StorageError, StoreOpenError
from hector.storage.extras import ServerKind, missing_driver
from hector.storage.migrate import (
    HECTOR,
    Found,
    History,
    check_known,
    check_may_change,
    look,
    next_step,
)
from hector.storage.place import check_place
from hector.storage.settings import ServerSettings
from hector.storage.sqlite import translated


@dataclass(frozen=True, slots=True)
class Findings:
    server: str
    """Its name and version: `SQLite 3.40.1`."""
    schema: str | None = None
    """The version of Hector's tables; None where a start has yet to make them."""
    warnings: Sequence[str] = ()
    """What a start would do, or what may surprise."""


async def probe_sqlite(name: str, path: Path, *, auto_migrate: bool) -> Findings:
    """Of an absolute path. Raises `StoreOpenError` where a start would."""
    try:
        return await asyncio.to_thread(_probe, path, auto_migrate=auto_migrate)
    except OSError as error:
        raise StoreOpenError(name, f"{path}: its folder cannot be used: {error.strerror or error}") from error
    except StorageError as error:
        raise StoreOpenError(name, f"{path}: {error}") from error


async def probe_server(driver: ServerKind, settings: ServerSettings) -> Findings:
    """Raises `StoreOpenError` where a start would."""
    if text := missing_driver(driver):
        raise StoreOpenError(settings.store, text)
    # Each of these imports a library that the other does not need.
    match driver:
        case "postgres":
            from hector.storage.postgres.probe import probe  # noqa: PLC0415
        case "mysql":
            from hector.storage.mysql.probe import probe  # noqa: PLC0415
        case other:
            assert_never(other)
    server, found, doubts = await probe(settings)
    try:
        about = findings(server, found, auto_migrate=settings.auto_migrate)
    except StorageError as error:
        raise StoreOpenError(settings.store, str(error)) from error
    return replace(about, warnings=[*about.warnings, *doubts])


def findings(server: str, found: Found, history: History = HECTOR, *, auto_migrate: bool) -> Findings:
    """Raises `StorageError` where a start would refuse."""
    step = next_step(found, history)
    if step == "migrate":
        check_known(found, history)
    if step != "nothing":
        check_may_change(found, history, auto_migrate=auto_migrate)
    match step:
        case "nothing":
            return Findings(server, found.version)
        case "create" | "create again":
            return Findings(server, None, ["its tables are not there yet; a start makes them"])
        case "start afresh":
            return Findings(server, None, ["its sessions were dropped; a start makes all tables anew"])
        case "migrate":
            warning = f"its schema is of version {found.version}; a start brings it to {history.head}"
            return Findings(server, found.version, [warning])
        case other:
            assert_never(other)


def _probe(path: Path, *, auto_migrate: bool) -> Findings:
    server = f"SQLite {sqlite3.sqlite_version}"
    check_place(path)
    if not path.exists():
        check_may_change(Found(frozenset(), None), HECTOR, auto_migrate=auto_migrate)
        return Findings(server, None, ["the file is not there yet; a start makes it"])
    return findings(server, _found(path), auto_migrate=auto_migrate)


def _found(path: Path) -> Found:
    with translated(), contextlib.closing(_open_to_read(path)) as connection:
        engine = create_engine("sqlite://", creator=lambda: connection, poolclass=pool.StaticPool)
        with _as_raised(), engine.connect() as looking:
            return look(looking, HECTOR)


def _open_to_read(path: Path) -> sqlite3.Connection:
    # A reader of a WAL database makes the two files beside it if they are missing, unless it is told that
    # nobody writes, which is so as long as they are.
    idle = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro{idle}", uri=True)


@contextlib.contextmanager
def _as_raised() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise error.orig or error from error
