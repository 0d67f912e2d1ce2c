"""`hector db`: what administrators do with the databases of session stores."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from hector.cli.output import visible
from hector.config.model import Config, SqlStoreSection
from hector.config.sql import MySqlSection, PostgresSection, SqliteSection
from hector.config.suggest import did_you_mean
from hector.domain.errors import InvalidError, StoreOpenError
from hector.runtime.patience import Patience
from hector.runtime.stores import server_settings, sqlite_settings
from hector.storage.grants import grants
from hector.storage.migrate import HECTOR
from hector.storage.opening import open_server, open_sqlite
from hector.storage.probing import probe_server, probe_sqlite
from hector.storage.settings import ServerSettings

_LONGEST_QUESTION = 3.0
"""Seconds for a server to say where the tables are. Without its answer the statements are of use, too."""


async def show_grants(config: Config, role: str, *, store: str | None, as_json: bool) -> int:
    """The exit status. Raises `InvalidError`."""
    if not role or "\0" in role:
        raise InvalidError("ROLE", "wanted a name")
    name = _choose(config, store)
    section = config.session_stores[name]
    schema: str | None = None
    notes: list[str] = []
    match section:
        case SqlStoreSection(sql=PostgresSection() as sql):
            schema, doubt = await _schema(server_settings(name, section, sql))
            statements = grants("postgres", role, database=sql.database, schema=schema)
            if doubt:
                notes.append(f"schema {schema!r} is a guess: {doubt}")
            if schema not in (sql.schema_name, "public", role):
                notes.append(f"whoever serves as {role!r} finds the tables with the key `schema: {schema}`")
        case SqlStoreSection(sql=MySqlSection() as sql):
            user, _, host = role.rpartition("@")
            statements = grants("mysql", user or role, database=sql.database, host=host if user else "%")
        case _:
            raise InvalidError("--store", f"session store {name!r} is on no server that knows roles")
    if as_json:
        report = {
            "store": name,
            "driver": sql.driver,
            "schema": schema,
            "notes": notes,
            "statements": statements,
        }
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print(visible("\n".join([*(f"-- {note}" for note in notes), *statements])))
    return 0


async def migrate_stores(config: Config, *, store: str | None) -> int:
    """The exit status. A server that cannot be reached is tried for its `connect_retry`.

    Raises `InvalidError` and `StoreOpenError`.
    """
    for name in _in_sql(config) if store is None else [_choose(config, store)]:
        section = config.session_stores[name]
        if not isinstance(section, SqlStoreSection):
            raise InvalidError("--store", f"session store {name!r} is in memory, and has nothing to migrate")
        # As a start does: its database may be starting, too.
        before = await Patience().open(name, partial(_migrate, name, section), section.connect_retry)
        print(visible(f"session store {name!r}: schema {HECTOR.head} ({_done(before)})"))
    return 0


async def _migrate(name: str, section: SqlStoreSection) -> str | None:
    """The version that was there before; None if there was none."""
    sql = section.sql
    if isinstance(sql, SqliteSection):
        file = replace(sqlite_settings(section, sql), path=sql.database.resolve(), auto_migrate=True)
        found = await probe_sqlite(name, file.path, auto_migrate=True)
        opened = await open_sqlite(name, file)
    else:
        server = replace(server_settings(name, section, sql), auto_migrate=True)
        found = await probe_server(sql.driver, server)
        opened = await open_server(sql.driver, server)
    await opened.close()
    return found.schema


def _done(before: str | None) -> str:
    # By this process, or by another that was faster.
    if before is None:
        return "made"
    return "was up to date" if before == HECTOR.head else f"upgraded from {before}"


def _in_sql(config: Config) -> Sequence[str]:
    return [name for name, store in config.session_stores.items() if isinstance(store, SqlStoreSection)]


def _choose(config: Config, name: str | None) -> str:
    """The named store, or the only one in SQL. Raises `InvalidError`."""
    found, known = _in_sql(config), ", ".join(sorted(config.session_stores))
    if name is None:
        if not found:
            raise InvalidError("--store", "the configuration has no session store in a database")
        if len(found) > 1:
            raise InvalidError("--store", f"say which session store is meant (known: {known})")
        return found[0]
    if name not in config.session_stores:
        hint = did_you_mean(name, config.session_stores) or f" (known: {known})"
        raise InvalidError("--store", f"no session store named {name!r}{hint}")
    return name


async def _schema(settings: ServerSettings) -> tuple[str, str | None]:
    """PostgreSQL's, and why that is only a guess, if it is."""
    if settings.schema:
        return settings.schema, None
    # They import a library that other stores do not need.
    from hector.storage.postgres.connect import connect  # noqa: PLC0415
    from hector.storage.postgres.migrate import find_schema  # noqa: PLC0415

    try:
        link = await connect(
            replace(settings, connect_timeout=min(settings.connect_timeout, _LONGEST_QUESTION))
        )
        try:
            return await find_schema(link.connection, settings), None
        finally:
            link.connection.terminate()
    except StoreOpenError as error:
        return "public", " ".join(str(error).split())  # a comment ends with its line
