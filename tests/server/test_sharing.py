"""Several who accept from one socket, as processes do: each connection goes to whoever holds the fewest."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from hector.config import ServerSection
from hector.runtime.patience import Patience
from hector.server.http.sharing import Acceptor, Counts, Share, SharedAccepting
from hector.server.listening import listen, port_of
from hector.server.serve import Ports, Server
from tests.server.site import open_scripted


class Held(asyncio.Protocol):
    """Counts itself, and sends back what it is sent."""

    def __init__(self, share: Share) -> None:
        self._share = share

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._share.add(1)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._share.add(-1)


@pytest.fixture
async def listener() -> AsyncIterator[socket.socket]:
    (found,) = await listen("127.0.0.1", 0, patience=0)
    with found:
        yield found


@pytest.fixture
def counts() -> Iterator[Counts]:
    file = Counts.new_file(3)
    yield Counts(file, 3)
    os.close(file)


def sharer(counts: Counts, process: int, listener: socket.socket, *, at_once: bool = True) -> SharedAccepting:
    share = Share(counts, process)
    accepting = SharedAccepting(share, at_once=at_once)
    accepting.add([listener.dup()], lambda: Held(share))
    return accepting


async def connect(listener: socket.socket) -> asyncio.StreamWriter:
    """Returns when somebody has accepted and answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of([listener]))
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    return writer


async def close(*connections: asyncio.StreamWriter) -> None:
    for each in connections:
        each.close()
        await each.wait_closed()


def end(*sharers: SharedAccepting) -> None:
    for each in sharers:
        for acceptor in each.acceptors:
            acceptor.close()


async def test_connections_that_stay_are_spread_evenly(listener: socket.socket, counts: Counts) -> None:
    sharers = [sharer(counts, 0, listener)]
    connections = [await connect(listener) for _ in range(6)]
    sharers += [sharer(counts, process, listener) for process in (1, 2)]
    connections += await asyncio.gather(*(connect(listener) for _ in range(24)))
    assert [counts[process] for process in range(3)] == [10, 10, 10]
    await close(*connections)
    end(*sharers)


async def test_one_that_hangs_holds_nobody_up(listener: socket.socket, counts: Counts) -> None:
    counts[2] = 0  # it accepts, as far as it says itself
    only = sharer(counts, 0, listener)
    connections = [await connect(listener) for _ in range(3)]
    assert counts[0] == 3
    await close(*connections)
    end(only)


async def test_a_connection_that_is_closed_counts_no_more(listener: socket.socket, counts: Counts) -> None:
    only = sharer(counts, 0, listener)
    await close(*[await connect(listener) for _ in range(3)])
    await close(await connect(listener))
    while counts[0]:  # noqa: ASYNC110 - the other end notices in its own time
        await asyncio.sleep(0)
    end(only)


async def test_nobody_accepts_before_one_begins_or_after_all_have_ended(
    listener: socket.socket, counts: Counts
) -> None:
    assert not counts.anybody()
    waiting = sharer(counts, 1, listener, at_once=False)
    connecting = asyncio.create_task(connect(listener))
    assert (counts.anybody(), counts[1]) == (False, None)
    waiting.begin()
    connection = await connecting
    assert (counts.anybody(), counts[1]) == (True, 1)
    waiting.begin()
    end(waiting)
    assert not counts.anybody()
    await close(connection)


async def test_a_process_without_descriptors_tries_again(
    listener: socket.socket, counts: Counts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hector.server.http.sharing._EXHAUSTED_PAUSE", 0.01)
    share = Share(counts, 0)
    exhausted = Exhausted(listener)
    acceptor = Acceptor(exhausted, share, lambda: Held(share))
    acceptor.begin()
    connecting = asyncio.create_task(connect(listener))
    while "cannot accept a connection (too many open files)" not in caplog.text:  # noqa: ASYNC110 - a log line sets no event
        await asyncio.sleep(0)
    assert acceptor._pause, "it does not ask again and again"
    exhausted.descriptors = 1
    await close(await connecting)
    acceptor.close()
    await acceptor.wait_closed()


# --- a server that takes its share


async def test_while_others_serve_nothing_is_taken_before_it_serves(
    listener: socket.socket, counts: Counts
) -> None:
    runtime, _ = await open_scripted()
    accepting = SharedAccepting(Share(counts, 0), at_once=False)
    server = Server(ServerSection(), Ports([listener.dup()], 0, accepting), Patience())
    await server.start()
    assert not counts.anybody()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as there:
        asking = asyncio.create_task(there.get("/ready"))
        await server.open(runtime)
        assert (await asking).status_code == 200
        assert counts[0] == 1
        await server.stop()
    assert counts[0] is None


async def test_where_nobody_serves_it_tells_what_it_waits_for(
    listener: socket.socket, counts: Counts
) -> None:
    accepting = SharedAccepting(Share(counts, 0), at_once=True)
    server = Server(ServerSection(), Ports([listener.dup()], 0, accepting), Patience())
    await server.start()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as there:
        assert (await there.get("/health")).status_code == 200
        assert (await there.get("/ready")).status_code == 503
    await server.stop()


async def test_connections_that_were_lost_are_not_counted(listener: socket.socket, counts: Counts) -> None:
    accepting = SharedAccepting(Share(counts, 0), at_once=True)
    server = Server(ServerSection(), Ports([listener.dup()], 0, accepting), Patience())
    await server.start()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as there:
        await there.get("/health")
        assert counts[0] == 1
    while counts[0]:  # noqa: ASYNC110 - the other end notices in its own time
        await asyncio.sleep(0)
    await server.stop()


class Exhausted(socket.socket):
    """Has no descriptor for a connection, until it is given some."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(fileno=os.dup(listener.fileno()))
        self.descriptors = 0

    def accept(self) -> tuple[socket.socket, object]:
        if not self.descriptors:
            raise OSError(24, "too many")
        return super().accept()
