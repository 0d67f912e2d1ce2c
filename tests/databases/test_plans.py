"""Which statements go by the index of listings, by the plans of databases that know of no rows yet.

To PostgreSQL all indexes of such a table look alike, and it keeps the plan that it made then.
"""

import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from itertools import product
from types import ModuleType
from typing import TypeAlias

import pytest

from hector.storage import fused, push_statements, statements
from hector.storage.listing import listing_statement
from hector.storage.migrate import upgrade_sqlite
from hector.storage.operations import Language, Statement
from hector.storage.postgres.connect import connect
from hector.storage.postgres.connection import DIALECT
from hector.storage.sqlite import LANGUAGE as SQLITE
from tests.migrations.test_server_schema import migrated
from tests.servers import Database

LISTED = "idx_turns_listed"

Plan: TypeAlias = Callable[[Statement], Awaitable[str]]


def _of(module: ModuleType) -> Iterator[tuple[str, Statement]]:
    for name, value in vars(module).items():
        many = value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else (value,)
        for each in many:
            if isinstance(each, Statement):
                yield name, each


@pytest.fixture
async def on_postgres(postgres_db: Database) -> AsyncIterator[Plan]:
    await migrated(postgres_db)  # the newest index comes last, and where all are alike PostgreSQL takes that
    link = await connect(postgres_db.settings())

    async def plan(statement: Statement) -> str:
        text, _ = statement._compile(Language(DIALECT, postgres_db.user))
        count = max((int(number) for number in re.findall(r"\$(\d+)", text)), default=0)
        await link.connection.execute(f"PREPARE it AS {text}")
        values = f"({', '.join(['NULL'] * count)})" if count else ""
        rows = await link.connection.fetch(f"EXPLAIN EXECUTE it{values}")
        await link.connection.execute("DEALLOCATE it")
        return "\n".join(row[0] for row in rows)

    yield plan
    await link.connection.close()


@pytest.fixture
def on_sqlite() -> Iterator[Plan]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        upgrade_sqlite(connection)

        async def plan(statement: Statement) -> str:
            text, _ = statement._compile(SQLITE)
            rows = connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?")).fetchall()
            return "\n".join(row[3] for row in rows)

        yield plan


async def test_only_listings_go_by_their_index_on_postgres(on_postgres: Plan) -> None:
    others = [each for module in (statements, push_statements, fused) for each in _of(module)]
    assert len(others) > 80
    for name, statement in others:
        assert LISTED not in await on_postgres(statement), name


async def test_only_listings_go_by_their_index_on_sqlite(on_sqlite: Plan) -> None:
    for module in (statements, push_statements):
        for name, statement in _of(module):
            assert LISTED not in await on_sqlite(statement), name


async def test_a_listing_of_a_session_reads_that_session_alone_on_postgres(on_postgres: Plan) -> None:
    await _listings_of_sessions_go_by_session(on_postgres)


async def test_a_listing_of_a_session_reads_that_session_alone_on_sqlite(on_sqlite: Plan) -> None:
    await _listings_of_sessions_go_by_session(on_sqlite)


async def _listings_of_sessions_go_by_session(plan: Plan) -> None:
    for session, state, since, after in product((False, True), repeat=4):
        found = await plan(listing_statement(session=session, state=state, since=since, after=after))
        assert (LISTED in found, "idx_turns_session" in found) == (not session, session), found
