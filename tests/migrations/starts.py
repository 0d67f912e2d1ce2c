"""Starts on a database server, as far as the schema goes, and what they leave."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncmy
import asyncpg

from hector.storage.migrate import HECTOR, VERSION_TABLE, History
from hector.storage.mysql import connect as mysql_connect
from hector.storage.mysql.migrate import upgrade_mysql
from hector.storage.postgres import connect as postgres_connect
from hector.storage.postgres.migrate import upgrade_postgres
from tests.servers import Database


@asynccontextmanager
async def connected_to_postgres(db: Database, **settings: Any) -> AsyncIterator["asyncpg.Connection[Any]"]:
    link = await postgres_connect.connect(db.settings(**settings))
    try:
        yield link.connection
    finally:
        await link.connection.close()


@asynccontextmanager
async def connected_to_mysql(db: Database, **settings: Any) -> AsyncIterator[asyncmy.Connection]:
    link = await mysql_connect.connect(db.settings(**settings))
    try:
        yield link.connection
    finally:
        await link.connection.ensure_closed()


async def start(db: Database, history: History = HECTOR, **settings: Any) -> str | None:
    """The name of PostgreSQL's schema. Raises `StoreOpenError`."""
    if db.driver == "postgres":
        async with connected_to_postgres(db, **settings) as connection:
            return await upgrade_postgres(connection, db.settings(**settings), history)
    async with connected_to_mysql(db, **settings) as connection:
        await upgrade_mysql(connection, db.settings(**settings), history)
    return None


_COLUMNS = """
    SELECT table_name, column_name, ordinal_position, data_type, character_maximum_length, datetime_precision,
        is_nullable, column_default, collation_name, is_identity, identity_generation, generation_expression
    FROM information_schema.columns WHERE table_schema = '{schema}'
"""
_INDEXES = (
    "SELECT tablename, replace(indexdef, '{schema}.', '') FROM pg_indexes WHERE schemaname = '{schema}'"
)
_CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, replace(pg_get_constraintdef(c.oid), '{schema}.', '')
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace WHERE nspname = '{schema}'
"""


async def described(db: Database, schema: str | None = None) -> Mapping[str, object]:
    """All that makes a schema, by table."""
    if db.driver == "postgres":
        schema = schema or db.user
        tables: dict[str, set[object]] = {}
        for query in (_COLUMNS, _INDEXES, _CONSTRAINTS):
            for table, *facts in await db.run(query.format(schema=schema), admin=True):
                tables.setdefault(table.removeprefix(f"{schema}."), set()).add(tuple(facts))
        return tables
    made = {}
    for (table,) in await db.run("SHOW TABLES", admin=True):
        ((_, sql),) = await db.run(f"SHOW CREATE TABLE {table}", admin=True)
        first, *inner, options = re.sub(r" AUTO_INCREMENT=\d+", "", sql).splitlines()
        made[table] = (first, frozenset(line.rstrip(",") for line in inner), options)
    return made


async def fill(db: Database) -> None:
    """A session with a turn of one message, which a start brought about."""
    await db.run(
        "INSERT INTO sessions (id, agent_id, user_id, metadata, created_at, updated_at, incarnation,"
        " last_seq, next_ticket, waiting, lease_epoch, summarized_through_seq, indexed_through_seq)"
        " VALUES ('s', 'a', 'u', '{}', '2026-01-01', '2026-01-01', 'i', 1, 0, 0, 1, 0, 0)",
        "INSERT INTO turns (agent_id, user_id, id, session_id, state, retryable, attempt, superseded,"
        " input_tokens, output_tokens, created_at)"
        " VALUES ('a', 'u', 't', 's', 'completed', false, 1, false, 0, 0, '2026-01-01')",
        "INSERT INTO messages (agent_id, user_id, session_id, seq, turn_id, retry, role, content, tokens,"
        " created_at) VALUES ('a', 'u', 's', 1, 't', 0, 1, '[]', 1, '2026-01-01')",
    )


async def version(db: Database) -> list[tuple[str]]:
    """All that the version table holds."""
    return await db.run(f"SELECT version_num FROM {VERSION_TABLE}")


async def drop_everything(db: Database) -> None:
    if db.driver == "postgres":
        await db.run(f"DROP SCHEMA {db.user} CASCADE")
    else:
        tables = ", ".join(name for (name,) in await db.run("SHOW TABLES"))
        await db.run("SET foreign_key_checks = 0", f"DROP TABLE {tables}")
