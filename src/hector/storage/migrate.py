"""Bring a database to the schema of this release, or say why that cannot be."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, event, pool
from sqlalchemy.dialects import sqlite as sqlalchemy_sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateTable

from hector.domain.errors import StorageError
from hector.storage.tables import metadata

HEAD = "0001"
"""The newest revision in migrations/versions; tests/migrations holds it to that."""
VERSION_TABLE = "hector_version"
"""Not Alembic's usual name: another program that shares the database may use that."""


def upgrade_sqlite(connection: sqlite3.Connection) -> None:
    """Create or migrate, in one transaction under SQLite's write lock: a kill leaves what was there before.

    Raises `StorageError` if the database is another program's, damaged, or of a newer release.
    """
    if _is_current(connection):
        return
    # Tables are dropped and made in an order of their own; inside a transaction the pragma has no effect.
    connection.execute("PRAGMA foreign_keys=OFF")
    try:
        with _transaction(connection):
            _create_if_missing(connection)
        if not _is_current(connection):
            _migrate(connection)
    finally:
        connection.execute("PRAGMA foreign_keys=ON")


def migrate(connection: Connection, revision: str) -> None:
    """Run Alembic's upgrades inside the connection's transaction."""
    # Slow to import, and only needed after an upgrade of Hector.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "hector.storage:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise StorageError(
            f"its schema is of a newer Hector; this one knows versions up to {HEAD}: upgrade Hector"
        ) from error


def _create_if_missing(connection: sqlite3.Connection) -> None:
    version = _version(connection)  # again: another process may have been faster
    tables = _tables(connection)
    missing = sorted({"sessions", "messages"} - tables)
    if version is None:
        if foreign := sorted(tables & metadata.tables.keys()):
            raise StorageError(
                f"its table {foreign[0]!r} was not made by Hector; give Hector a database of its own"
            )
        _create(connection)
    elif len(missing) == 2:
        # An operator dropped both to start afresh.
        for name in tables & {*metadata.tables, VERSION_TABLE}:
            connection.execute(f'DROP TABLE "{name}"')
        _create(connection)
    elif missing:
        raise StorageError(
            f"its table {missing[0]!r} is gone; restore the database from a backup,"
            " or drop the tables 'messages' and 'sessions' to start afresh"
        )


def _create(connection: sqlite3.Connection) -> None:
    """From the tables as they are today, which is quicker than the whole history and leads to the same."""
    dialect = sqlalchemy_sqlite.dialect()
    for table in metadata.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(str(CreateIndex(index).compile(dialect=dialect)))
    connection.execute(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    connection.execute(f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')")  # noqa: S608  # our own constants


def _migrate(connection: sqlite3.Connection) -> None:
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=pool.StaticPool)
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as transaction:
        # Looks at the version again, under the lock.
        migrate(transaction, "head")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is_current(connection: sqlite3.Connection) -> bool:
    return _version(connection) == HEAD and {"sessions", "messages"} <= _tables(connection)


def _version(connection: sqlite3.Connection) -> str | None:
    if VERSION_TABLE not in _tables(connection):
        return None
    row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608  # our own constant
    return row[0] if row else None


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
