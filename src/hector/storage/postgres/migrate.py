"""PostgreSQL: see by looking that the schema is current, or create or migrate it under a lock."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError

from hector.domain.errors import StorageError, StoreOpenError, StoreUnreachableError
from hector.storage.grants import missing, quoted, refused
from hector.storage.migrate import (
    HECTOR,
    VERSION_TABLE,
    Found,
    History,
    bring_up,
    check_may_change,
    told_while_waiting,
)
from hector.storage.postgres.schema import Surroundings, choose_schema, held_in, look_around
from hector.storage.settings import ServerSettings

logger = logging.getLogger(__name__)

_LOCK = int.from_bytes(b"hector")
"""The advisory lock of whoever changes the schema. Such locks belong to one database."""
_LONGEST_WAIT = "5s"
"""For a lock on a table: whoever comes to that table meanwhile waits behind the change."""
_LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
_FOR_NOW = ("08", "25006", "40", "53", "55P03", "57", "58")
"""Beginnings of error codes after which another try may succeed: lost, read-only, collisions, full, locked,
interrupted or shut down, I/O."""


async def upgrade_postgres(
    connection: "asyncpg.Connection[Any]", settings: ServerSettings, history: History = HECTOR
) -> str:
    """Make the schema that of this release, unless it is; the name of the schema that holds the tables.

    The connection is to be closed afterwards. Raises `StoreOpenError`, also for a role that may not serve.
    """
    with _translated(settings):
        schema, found = await _look(connection, settings, history)
        if not found.is_current(history):
            check_may_change(found, history, auto_migrate=settings.auto_migrate)
            schema = await _change(connection, settings, history)
            await _look(connection, settings, history)
        return schema


async def check_privileges(
    connection: "asyncpg.Connection[Any]", settings: ServerSettings, history: History = HECTOR
) -> tuple[str, Found]:
    """The name of the schema and what is there; nothing is changed.

    Raises `StoreOpenError` if the role may not serve with it, or may not make what is missing.
    """
    with _translated(settings):
        return await _look(connection, settings, history)


async def find_schema(
    connection: "asyncpg.Connection[Any]", settings: ServerSettings, history: History = HECTOR
) -> str:
    """The schema that holds the tables, or shall. Raises `StoreOpenError`."""
    with _translated(settings):
        async with connection.transaction(readonly=True):
            around = await look_around(connection, history.names, settings.schema)
        return choose_schema(around, settings.schema)


async def _look(
    connection: "asyncpg.Connection[Any]", settings: ServerSettings, history: History
) -> tuple[str, Found]:
    """In two statements."""
    # In a transaction, or a pooler might send the parts of one statement to different servers.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        around = await look_around(connection, history.names, settings.schema)
        schema = held_in(around, settings.schema)
        if schema is None:
            return _without_tables(around, settings, history)
        place = around.places[schema]
        lacks = {
            table: privileges
            for table, privileges in missing(place.tables, history).items()
            if table in place.tables
        }
        if not place.may_use or VERSION_TABLE in lacks:
            usage = None if place.may_use else schema
            raise StorageError(refused(around.role, lacks, and_usage_of=usage))
        version = await connection.fetchval(f"SELECT version_num FROM {quoted(schema)}.{VERSION_TABLE}")  # noqa: S608  # quoted
    if version == history.head and lacks:
        raise StorageError(refused(around.role, lacks))
    return schema, Found(frozenset(place.tables), version)


def _without_tables(around: Surroundings, settings: ServerSettings, history: History) -> tuple[str, Found]:
    check_may_change(Found(frozenset(), None), history, auto_migrate=settings.auto_migrate)
    schema = choose_schema(around, settings.schema)
    if around.encoding != "UTF8":
        raise StorageError(
            f"its database {around.database!r} has the encoding {around.encoding}, which cannot hold every"
            f" text; make it with: CREATE DATABASE {quoted(around.database)} ENCODING 'UTF8'"
            " TEMPLATE template0;"
        )
    place = around.places.get(schema)
    return schema, Found(frozenset(place.tables if place else ()), None)


async def _change(connection: "asyncpg.Connection[Any]", settings: ServerSettings, history: History) -> str:
    # Slow to import, and of use to few starts.
    from sqlalchemy import func, select  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415
    from sqlalchemy.schema import CreateSchema  # noqa: PLC0415

    async def given(**_: object) -> "asyncpg.Connection[Any]":
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=StaticPool,
        # Each look under the lock must see what others did before.
        isolation_level="READ COMMITTED",
        connect_args={
            "async_creator_fn": given,
            # A name would outlive the transaction on a server that a pooler gives to others then.
            "prepared_statement_name_func": lambda: "",
            "prepared_statement_cache_size": 0,
        },
    )
    async with engine.begin() as transaction:
        # For this transaction: it may take its time, which the log tells of.
        await transaction.execute(select(*(func.set_config(limit, "0", True) for limit in _LIMITS)))
        with told_while_waiting(settings.store):
            await transaction.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        around = await look_around(connection, history.names, settings.schema)
        schema = choose_schema(around, settings.schema)
        if schema not in around.places:
            await transaction.execute(CreateSchema(schema))
        await transaction.execute(
            select(
                func.set_config("lock_timeout", _LONGEST_WAIT, True),
                # For this transaction: tables that are named without a schema are those in this one.
                func.set_config("search_path", func.quote_ident(schema), True),
            )
        )
        step, before = await transaction.run_sync(
            bring_up, history, of_its_own="a database, or a schema (key `schema`),"
        )
    logger.info(
        "session store %r: %s in schema %r (version before: %s, now: %s)",
        settings.store,
        step,
        schema,
        before.version,
        history.head,
    )
    return schema


@contextlib.contextmanager
def _translated(settings: ServerSettings) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise StoreOpenError(settings.store, str(error)) from error
    except DBAPIError as error:
        raise _ours(error.driver_exception, settings) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise _ours(error, settings) from error


def _ours(error: BaseException, settings: ServerSettings) -> StoreOpenError:
    if not isinstance(error, asyncpg.PostgresError):
        return StoreUnreachableError(
            settings.store, f"the connection was lost while its schema was prepared: {error}"
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreOpenError(
            settings.store,
            f"its user {settings.user!r} may not change the schema ({error});"
            " let a user that owns the tables run `hector db migrate`",
        )
    kind = StoreUnreachableError if str(error.sqlstate).startswith(_FOR_NOW) else StoreOpenError
    return kind(settings.store, f"its schema cannot be created or changed: {error} ({error.sqlstate})")
