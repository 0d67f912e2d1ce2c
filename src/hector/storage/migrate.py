"""Bring a database to the schema of this release, or say why that cannot be.

Everything here is the same on all databases; how a server's is locked and looked at stands in
`postgres.migrate` and `mysql.migrate`.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

from sqlalchemy import (
    Column,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    literal,
    pool,
    select,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from hector.domain.errors import StorageError
from hector.storage.tables import MYSQL_OPTIONS, metadata

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

VERSION_TABLE = "hector_version"
"""Not Alembic's usual name: another program that shares the database may use that."""
CREATING = "creating"
"""The version of a schema that is being made; seen by others only where each statement commits itself."""


@dataclass(frozen=True, slots=True)
class History:
    """The tables as they are today, and the revisions that lead there."""

    head: str
    """The newest revision."""
    metadata: MetaData
    versions: Sequence[str]
    """Folders of revisions, as Alembic is told them."""

    @property
    def names(self) -> frozenset[str]:
        """Of all tables that are Hector's."""
        return frozenset({*self.metadata.tables, VERSION_TABLE})


HECTOR = History("0004", metadata, ["hector.storage:migrations/versions"])

version_table = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), primary_key=True),
    **MYSQL_OPTIONS,
)
"""With the column that Alembic reads and writes."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is there."""

    tables: frozenset[str]
    """Those with a name of ours."""
    version: str | None
    """None: it says nothing of a version."""

    def is_current(self, history: History) -> bool:
        return self.version == history.head and history.names <= self.tables


DROPPED_TO_START_AFRESH = frozenset({"messages", "sessions"})
"""By an operator, as the documentation says."""
Step: TypeAlias = Literal["nothing", "create", "create again", "start afresh", "migrate"]


def next_step(found: Found, history: History, *, of_its_own: str = "a database") -> Step:
    """Raises `StorageError` if what is there is not ours to change."""
    if found.version is None:
        if foreign := sorted(found.tables - {VERSION_TABLE}):
            raise StorageError(
                f"its table {foreign[0]!r} was not made by Hector; give Hector {of_its_own} of its own"
            )
        return "create"
    if found.version == CREATING:
        return "create again"
    if not found.tables & DROPPED_TO_START_AFRESH:
        return "start afresh"
    # A migration that is due may bring new tables.
    expected = history.names if found.version == history.head else DROPPED_TO_START_AFRESH
    if missing := sorted(expected - found.tables):
        # What refers to the other comes first.
        left = [repr(name) for name in ("messages", "sessions") if name in found.tables]
        raise StorageError(
            f"its table {missing[0]!r} is gone; restore the database from a backup,"
            f" or drop the table{'s' if len(left) > 1 else ''} {' and '.join(left)} to start afresh"
        )
    return "nothing" if found.is_current(history) else "migrate"


def bring_up(
    connection: Connection, history: History = HECTOR, *, of_its_own: str = "a database"
) -> tuple[Step, Found]:
    """Create or migrate, under a lock that the caller holds and in the transaction that it has begun.

    Where each statement commits itself, what a kill left half-made is completed. Returns what was done, and
    what was there before. Raises `StorageError`.
    """
    found = look(connection, history)
    step = next_step(found, history, of_its_own=of_its_own)
    match step:
        case "nothing":
            pass
        case "create":
            _create(connection, history, found)
        case "create again":
            _drop_empty(connection, history, found)
            _create(connection, history, found)
        case "start afresh":
            # First, so that a kill after some of them leaves what starts afresh again.
            _drop(connection, history, found)
            _create(connection, history, found)
        case "migrate":
            migrate(connection, history.head, history)
        case other:
            assert_never(other)
    return step, found


def look(connection: Connection, history: History) -> Found:
    inspector = inspect(connection)
    tables = history.names & {*inspector.get_table_names(), *inspector.get_view_names()}
    version = connection.scalar(select(version_table.c.version_num)) if VERSION_TABLE in tables else None
    return Found(tables, version)


def migrate(connection: Connection, revision: str, history: History = HECTOR) -> None:
    """Run Alembic's upgrades inside the connection's transaction."""
    # Slow to import, and only needed after an upgrade of Hector.
    from alembic import command  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = alembic_config(history)
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise _newer(history) from error


def check_known(found: Found, history: History) -> None:
    """Of a schema that is to be migrated. Raises `StorageError` if it is of a newer release."""
    # As in `migrate`.
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    try:
        ScriptDirectory.from_config(alembic_config(history)).get_revisions(found.version or ())
    except CommandError as error:
        raise _newer(history) from error


def _newer(history: History) -> StorageError:
    return StorageError(
        f"its schema is of a newer Hector; this one knows versions up to {history.head}: upgrade Hector"
    )


def alembic_config(history: History) -> "Config":
    from alembic.config import Config  # noqa: PLC0415  # as in `migrate`

    config = Config()
    config.set_main_option("script_location", "hector.storage:migrations")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(history.versions))
    return config


def _create(connection: Connection, history: History, found: Found) -> None:
    """From the tables as they are today, which is quicker than the whole history and leads to the same."""
    if VERSION_TABLE not in found.tables:
        connection.execute(CreateTable(version_table))
    if found.version is None:
        connection.execute(insert(version_table).values(version_num=CREATING))
    else:
        _stamp(connection, CREATING)
    for table in history.metadata.sorted_tables:
        connection.execute(CreateTable(table))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index))
    _stamp(connection, history.head)


def _stamp(connection: Connection, version: str) -> None:
    connection.execute(update(version_table).values(version_num=version))


def _drop_empty(connection: Connection, history: History, found: Found) -> None:
    """Nobody writes to tables before they are all there; one with rows is not what a kill left behind."""
    for table in _present(history, found):
        if connection.scalar(select(literal(1)).select_from(table).limit(1)):
            raise StorageError(
                f"its tables were never completed, and yet {table.name!r} holds rows; look what wrote them,"
                f" and drop the tables, {VERSION_TABLE!r} too, or restore a backup"
            )
    _drop(connection, history, found)


def _drop(connection: Connection, history: History, found: Found) -> None:
    for table in _present(history, found):
        connection.execute(DropTable(table))


def _present(history: History, found: Found) -> list[Table]:
    """What refers to others comes first."""
    return [table for table in reversed(history.metadata.sorted_tables) if table.name in found.tables]


# --- servers

_PATIENCE = 3.0
"""Seconds before a wait is told in the log; then again when it has taken twice as long."""


def check_may_change(found: Found, history: History, *, auto_migrate: bool) -> None:
    """Of a schema that is not current. Raises `StorageError`."""
    if auto_migrate:
        return
    state = f"is of version {found.version}, and this release needs {history.head}"
    raise StorageError(
        f"its schema {state if found.version else 'is not there'}, and auto_migrate is off:"
        " let `hector db migrate` make it"
    )


@contextlib.contextmanager
def told_while_waiting(store: str) -> Iterator[None]:
    """For a lock that other processes hold as long as they create or migrate."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def tell() -> None:
        pause = _PATIENCE
        while True:
            await asyncio.sleep(pause)
            pause = loop.time() - began
            logger.warning(
                "session store %r: another process creates or migrates its schema; waiting for %.0f s",
                store,
                pause,
            )

    telling = asyncio.ensure_future(tell())
    try:
        yield
    finally:
        telling.cancel()


# --- SQLite


def upgrade_sqlite(
    connection: sqlite3.Connection, history: History = HECTOR, *, auto_migrate: bool = True
) -> None:
    """Create or migrate, in one transaction under SQLite's write lock: a kill leaves what was there before.

    Raises `StorageError` if the database is another program's, damaged, or of a newer release.
    """
    found = _look_at_sqlite(connection, history)
    if found.is_current(history):
        return
    check_may_change(found, history, auto_migrate=auto_migrate)
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=pool.StaticPool)
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    # Tables are dropped and made in an order of their own; inside a transaction the pragma has no effect.
    connection.execute("PRAGMA foreign_keys=OFF")
    try:
        with engine.begin() as transaction:
            # Looks again: another process may have been faster.
            bring_up(transaction, history)
    except DBAPIError as error:
        # As the driver raised it, which is what callers know.
        raise error.orig or error from error
    finally:
        connection.execute("PRAGMA foreign_keys=ON")


def _look_at_sqlite(connection: sqlite3.Connection, history: History) -> Found:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    row = None
    if VERSION_TABLE in names:
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608  # our own constant
    return Found(history.names & names, row[0] if row else None)
