"""Round trips: statements that go to MySQL together, and how many a turn takes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asyncmy import errors

from hector.storage.mysql import pipeline
from hector.storage.mysql.connect import connect
from hector.storage.mysql.pipeline import Call, execute_together
from hector.storage.opening import open_server
from hector.storage.settings import Tls
from tests.contract.actor import Actor
from tests.databases.proxy import Proxy, proxy_to
from tests.servers import Database

PLAIN = Tls("disable")


@asynccontextmanager
async def seen_from(db: Database) -> AsyncIterator[tuple[Proxy, Any]]:
    """A proxy, and a connection through it."""
    async with proxy_to(db.host, db.port) as proxy:
        link = await connect(db.settings(port=proxy.port, tls=PLAIN))
        yield proxy, link.connection
        await link.connection.ensure_closed()


async def test_statements_go_together_and_are_answered_in_order(worker_mysql_db: Database) -> None:
    async with seen_from(worker_mysql_db) as (proxy, connection):
        texts = ("SELECT ?", "SELECT ?, ?", "SELECT ? WHERE 1 = 0")
        statements = [await connection.prepare(text) for text in texts]
        arguments: tuple[list[Any], ...] = ([1], ["two", "ü\N{GRINNING FACE}" * 1000], [3])
        proxy.arm()
        for _ in range(3):  # at first columns are described, and read as they were later
            calls = [Call(*call) for call in zip(statements, arguments, strict=True)]
            rows = [result.rows for result in await execute_together(connection, calls)]
            assert rows == [((1,),), (("two", "ü\N{GRINNING FACE}" * 1000),), ()]
        assert proxy.requests == 3


async def test_the_first_error_is_raised_when_all_are_answered(worker_mysql_db: Database) -> None:
    async with seen_from(worker_mysql_db) as (_, connection):
        good, bad, worse = [
            await connection.prepare(text)
            for text in (
                "SELECT ?",
                "SELECT * FROM (SELECT 1 UNION SELECT ?) AS two WHERE 1 = (SELECT 1 UNION SELECT 2)",
                "SELECT CAST(? AS INTEGER) + 9223372036854775807",
            )
        ]
        calls = [Call(good, [1]), Call(bad, [2]), Call(good, [3]), Call(worse, [4]), Call(good, [5])]
        with pytest.raises(errors.OperationalError) as raised:
            await execute_together(connection, calls)
        assert raised.value.args[0] == 1242, "more than one row, not a number out of range"
        assert (await good.execute([6])).rows == ((6,),), "the connection is fit for the next"


async def test_what_does_not_fit_into_one_packet_goes_alone(
    worker_mysql_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_ONE_PACKET", 1000)
    async with seen_from(worker_mysql_db) as (proxy, connection):
        statement = await connection.prepare("SELECT ?")
        proxy.arm()
        calls = [Call(statement, ["x" * size]) for size in (1, 2000, 2)]
        sizes = [len(result.rows[0][0]) for result in await execute_together(connection, calls)]
        assert (sizes, proxy.requests) == ([1, 2000, 2], 3)


async def test_a_turn_takes_few_round_trips(server_db: Database) -> None:
    async with proxy_to(server_db.host, server_db.port) as proxy:
        store = await open_server(
            server_db.driver, server_db.settings(port=proxy.port, max_conns=1, tls=PLAIN)
        )
        one = await Actor(store).join()
        await one.turn()
        await one.turn()
        proxy.arm()
        begun = await one.begin()
        # Lock and look for a repeat; take the lease, write, and read the tail; commit.
        # On PostgreSQL all but the tail is one statement, with its commit.
        beginning = proxy.requests
        await one.answer(begun)
        # Release the lease; write; commit.
        assert (beginning, proxy.requests) == {"postgres": (2, 3), "mysql": (3, 6)}[server_db.driver]
        await store.close()
