"""The way to the database loses, holds back and cuts what it should, and nothing else."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace

import pytest

from tests.chaos.network import Link
from tests.chaos.on_server import OnServer
from tests.chaos.stores import Way
from tests.servers import Database, DatabaseServer
from tests.servers.database import Execute


@dataclass
class Echo:
    """A server that remembers what it was sent, and sends it back."""

    received: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            self.received.put_nowait(line)
            writer.write(line)
        writer.close()


@dataclass
class Line:
    """A client of it, at the other end of a link."""

    link: Link
    echo: Echo
    reader: StreamReader
    writer: StreamWriter


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    link = await Link.to("127.0.0.1", server.sockets[0].getsockname()[1])
    line = Line(link, echo, *await asyncio.open_connection("127.0.0.1", link.port))
    line.writer.write(b"hello\n")
    assert await line.reader.readline() == b"hello\n"
    assert await echo.received.get() == b"hello\n"
    yield line
    line.writer.close()
    await link.close()
    server.close()


async def _rest(reader: StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_of_lost_answers_the_requests_still_arrive(line: Line) -> None:
    losing = asyncio.create_task(line.link.lose_answers(0.05))
    await asyncio.sleep(0)
    line.writer.write(b"lost\n")
    assert await line.echo.received.get() == b"lost\n"
    assert await _rest(line.reader) == b""
    await losing


async def test_what_was_held_back_arrives_in_the_end(line: Line) -> None:
    holding = asyncio.create_task(line.link.hold_back(0.05, then_cut=False))
    arriving = asyncio.create_task(line.echo.received.get())
    await asyncio.sleep(0)
    line.writer.write(b"late\n")
    done, _ = await asyncio.wait({holding, arriving}, return_when=asyncio.FIRST_COMPLETED)
    assert done == {holding}
    assert await arriving == b"late\n"
    assert await line.reader.readline() == b"late\n"


async def test_what_was_held_back_may_be_lost_with_its_connection(line: Line) -> None:
    holding = asyncio.create_task(line.link.hold_back(0.05, then_cut=True))
    await asyncio.sleep(0)
    line.writer.write(b"lost\n")
    assert await _rest(line.reader) == b""
    await holding
    assert line.echo.received.empty()


async def test_the_last_words_of_a_client_that_dies_arrive(line: Line) -> None:
    line.writer.write(b"last\n")
    line.writer.close()
    assert await line.echo.received.get() == b"last\n"


def _connected(db: Database, way: Way) -> AbstractAsyncContextManager[Execute]:
    assert way.link
    return replace(db, port=way.link.port).connected()


async def test_the_database_ends_the_connections_of_one_process(
    database_server: DatabaseServer, server_db: Database
) -> None:
    store = OnServer(database_server, server_db)
    one, other = await store.way(), await store.way()
    assert one.link
    assert other.link
    async with _connected(server_db, one), _connected(server_db, other) as execute:
        await store.cut_connections(one)
        assert await execute("SELECT 1") == [(1,)]
        assert await store.until_gone(one)
    assert await store.until_gone(other)


async def test_a_process_is_gone_when_its_connections_are(
    database_server: DatabaseServer, server_db: Database
) -> None:
    store = OnServer(database_server, server_db)
    way = await store.way()
    async with _connected(server_db, way):
        going = asyncio.create_task(store.until_gone(way))
        await store.crowd()  # it asks the database, too
        assert not going.done()
    assert await going


async def test_a_process_with_too_many_connections_is_told(
    database_server: DatabaseServer, server_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.on_server._CROWDED_FOR", 0.0)
    monkeypatch.setattr("tests.chaos.on_server.MAX_CONNS", 1)
    store = OnServer(database_server, server_db)
    way, shared = await store.way(), await store.way(processes=2)
    async with _connected(server_db, way), _connected(server_db, shared), _connected(server_db, shared):
        assert await store.crowd() == []
        async with _connected(server_db, way):
            assert await store.crowd() == ["a server has 2 connections of 1"]
        async with _connected(server_db, shared):
            assert await store.crowd() == ["a server has 3 connections of 2"]
    assert await store.until_gone(way)
    assert await store.until_gone(shared)
