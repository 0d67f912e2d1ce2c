"""MySQL and MariaDB: see by looking that the schema is current, or create or migrate it under a lock.

A change of the schema commits itself there, so each of them leaves what the next start can complete.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncmy
from asyncmy import errors
from sqlalchemy.exc import DBAPIError

from hector.domain.errors import StorageError, StoreOpenError, StoreUnreachableError
from hector.storage.grants import literal, missing, needed, refused
from hector.storage.migrate import (
    DROPPED_TO_START_AFRESH,
    HECTOR,
    VERSION_TABLE,
    Found,
    History,
    bring_up,
    check_may_change,
    told_while_waiting,
    version_table,
)
from hector.storage.mysql.privileges import remedy
from hector.storage.settings import ServerSettings

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 5
"""Seconds for a lock on a table: whoever comes to that table meanwhile waits behind the change."""
_FOREVER = 365 * 24 * 3600
_LONGEST_LOCK_NAME = 64

# Numbers of the servers' errors: mysqld_error.h.
_NO_TABLE = 1146
_DENIED = frozenset({1044, 1142, 1143, 1227})
_FOR_NOW = frozenset(
    {
        1028,  # took too long
        1053,  # shuts down
        1205,  # locked
        1213,  # a deadlock
        1290,  # read-only
        1317,  # interrupted
        1836,
        1927,
        1969,
        3024,
        4031,
    }
)
"""Another try may succeed."""
_LOST = frozenset({0, 2006, 2013, 2055})


async def upgrade_mysql(
    connection: asyncmy.Connection, settings: ServerSettings, history: History = HECTOR
) -> None:
    """Make the schema that of this release, unless it is.

    The connection is to be closed afterwards. Raises `StoreOpenError`, also for a role that may not serve.
    """
    with _translated(settings):
        found = await _look(connection, history)
        if not found.is_current(history):
            check_may_change(found, history, auto_migrate=settings.auto_migrate)
            await _change(connection, settings, history)
            await _look(connection, history)


async def check_privileges(
    connection: asyncmy.Connection, settings: ServerSettings, history: History = HECTOR
) -> Found:
    """What is there; nothing is changed. Raises `StoreOpenError` if the user may not serve with it."""
    with _translated(settings):
        return await _look(connection, history)


async def _look(connection: asyncmy.Connection, history: History) -> Found:
    """In two statements, if all is well."""
    try:
        rows = await _fetch(connection, f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608  # our own constant
    except errors.MySQLError as error:
        if _number(error) in _DENIED:
            await _check_privileges(connection, await _see(connection, history), needed(history), history)
        if _number(error) != _NO_TABLE:
            raise
        rows = ()
    version = rows[0][0] if rows else None
    sight = await _see(connection, history)
    doubtful: Mapping[str, Sequence[str]] = {}
    if version == history.head:
        doubtful = missing(sight.privileges, history)
    elif version:
        # What the server keeps silent of must not be taken for dropped.
        doubtful = dict.fromkeys(sorted(DROPPED_TO_START_AFRESH - sight.tables), ("SELECT",))
    await _check_privileges(connection, sight, doubtful, history)
    return Found(sight.tables, version)


@dataclass(frozen=True, slots=True)
class _Sight:
    """What a user is told of by the server, who keeps silent of what it has no privilege for."""

    user: str
    """With the host for which it was made: `hector@%`."""
    tables: frozenset[str]
    """Those with a name of ours."""
    privileges: Mapping[str, frozenset[str]]
    """By table, without those that it has by a role, or for all databases with names like this one's."""


async def _see(connection: asyncmy.Connection, history: History) -> _Sight:
    names = ", ".join(f"'{name}'" for name in sorted(history.names))
    mine = "REPLACE(grantee, '''', '') = CURRENT_USER()"
    rows = await _fetch(
        connection,
        f"""
        SELECT 'user', CURRENT_USER(), ''
        UNION ALL SELECT 'table', table_name, '' FROM information_schema.tables
            WHERE table_schema = DATABASE() AND table_name IN ({names})
        UNION ALL SELECT 'all', privilege_type, '' FROM information_schema.user_privileges WHERE {mine}
        UNION ALL SELECT 'all', privilege_type, '' FROM information_schema.schema_privileges
            WHERE {mine} AND REPLACE(table_schema, CHAR(92), '') = DATABASE()
        UNION ALL SELECT 'one', privilege_type, table_name FROM information_schema.table_privileges
            WHERE {mine} AND table_schema = DATABASE()
        """,  # noqa: S608  # our own constants
    )
    on_all = {name for kind, name, _ in rows if kind == "all"}
    return _Sight(
        next(name for kind, name, _ in rows if kind == "user"),
        frozenset(name for kind, name, _ in rows if kind == "table"),
        {
            table: frozenset(on_all | {name for kind, name, of in rows if kind == "one" and of == table})
            for table in history.names
        },
    )


async def _check_privileges(
    connection: asyncmy.Connection, sight: _Sight, doubtful: Mapping[str, Sequence[str]], history: History
) -> None:
    """Raises `StorageError` with all that are missing of the doubtful ones."""
    lacks = {}
    for table, privileges in doubtful.items():
        if refusals := [each for each in privileges if await _is_refused(connection, each, table, history)]:
            lacks[table] = refusals
    if lacks:
        raise StorageError(refused(sight.user, lacks))


async def _is_refused(connection: asyncmy.Connection, privilege: str, table: str, history: History) -> bool:
    """Ask for a plan, which changes nothing and yet takes the privilege."""
    (column, *_) = (history.metadata.tables | {VERSION_TABLE: version_table})[table].columns
    statement = {
        "SELECT": "SELECT 1 FROM {table} LIMIT 0",
        "INSERT": "EXPLAIN INSERT INTO {table} () VALUES ()",
        "UPDATE": "EXPLAIN UPDATE {table} SET {column} = NULL WHERE FALSE",
        "DELETE": "EXPLAIN DELETE FROM {table} WHERE FALSE",
    }[privilege]
    try:
        await _fetch(connection, statement.format(table=table, column=column.name))
    except errors.MySQLError as error:
        if _number(error) in _FOR_NOW | _LOST:
            raise
        # Whatever else is wrong with it, privileges are looked at first.
        return _number(error) in _DENIED
    return False


async def _change(connection: asyncmy.Connection, settings: ServerSettings, history: History) -> None:
    # Slow to import, and of use to few starts.
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415

    async def given() -> asyncmy.Connection:
        return connection

    ((server, account),) = await _fetch(connection, "SELECT VERSION(), CURRENT_USER()")
    is_mariadb = "mariadb" in server.lower()
    # Each look under the lock must see what others did before. The driver's own call may do nothing: it does
    # not notice when autocommit is turned off.
    await _fetch(connection, "SET SESSION autocommit = 1")
    limit = "max_statement_time" if is_mariadb else "max_execution_time"
    await _fetch(connection, f"SET SESSION {limit} = 0")
    engine = create_async_engine(
        "mariadb+asyncmy://" if is_mariadb else "mysql+asyncmy://",
        poolclass=StaticPool,
        async_creator=given,
    )
    lock = literal(_lock_name(settings.database))
    with told_while_waiting(settings.store):
        ((got,),) = await _fetch(connection, f"SELECT GET_LOCK({lock}, {_FOREVER})")
    if got != 1:
        raise StoreUnreachableError(settings.store, f"the wait for the lock {lock} was broken off")
    await _fetch(connection, f"SET SESSION lock_wait_timeout = {_LONGEST_WAIT}")
    # Refuses where tables are hidden, which others may have made meanwhile.
    await _look(connection, history)
    with _told_if_denied(account, settings.database):
        async with engine.connect() as session:
            step, before = await session.run_sync(bring_up, history)
    await _fetch(connection, f"SELECT RELEASE_LOCK({lock})")
    logger.info(
        "session store %r: %s (version before: %s, now: %s)",
        settings.store,
        step,
        before.version,
        history.head,
    )


@contextlib.contextmanager
def _told_if_denied(account: str, database: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        denied = error.driver_exception
        if _number(denied) not in _DENIED:
            raise
        raise StorageError(
            f"its user {account!r} may not change the schema ({denied.args[-1]}); {remedy(account, database)}"
        ) from error


def _lock_name(database: str) -> str:
    """Such locks are the whole server's."""
    name = f"hector.{database}"
    return (
        name
        if len(name) <= _LONGEST_LOCK_NAME
        else f"hector.{hashlib.sha256(database.encode()).hexdigest()[:40]}"
    )


async def _fetch(connection: asyncmy.Connection, statement: str) -> Sequence[Sequence[Any]]:
    async with connection.cursor() as cursor:
        await cursor.execute(statement)
        rows: Sequence[Sequence[Any]] = await cursor.fetchall()
        return rows


@contextlib.contextmanager
def _translated(settings: ServerSettings) -> Iterator[None]:
    try:
        yield
    except StoreOpenError:
        raise
    except StorageError as error:
        raise StoreOpenError(settings.store, str(error)) from error
    except DBAPIError as error:
        raise _ours(error.driver_exception, settings) from error
    except (OSError, errors.MySQLError) as error:
        raise _ours(error, settings) from error


def _ours(error: BaseException, settings: ServerSettings) -> StoreOpenError:
    number = _number(error)
    if isinstance(error, OSError) or number in _LOST:
        return StoreUnreachableError(
            settings.store, f"the connection was lost while its schema was prepared: {error}"
        )
    message = error.args[-1]
    kind = StoreUnreachableError if number in _FOR_NOW else StoreOpenError
    return kind(settings.store, f"its schema cannot be created or changed: {message} ({number})")


def _number(error: BaseException) -> int | None:
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) else None
