"""The way from one process to a database server, on which whatever happens to networks can happen."""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass
from typing import Self

_CHUNK = 1 << 16


@dataclass(slots=True, eq=False)
class _Connection:
    client: StreamWriter
    server: StreamWriter
    mute: bool = False
    """What the server answers is lost."""

    @property
    def port(self) -> int:
        """By which the server knows it."""
        number: int = self.server.get_extra_info("sockname")[1]
        return number

    def abort(self) -> None:
        for each in (self.client, self.server):
            each.transport.abort()


class Link:
    """A TCP proxy for one process."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self._listener: asyncio.Server
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0
        self.ports_seen: set[int] = set()
        """The client's ports of all connections that there ever were, as the server saw them."""

    @classmethod
    async def to(cls, host: str, port: int) -> Self:
        link = cls(host, port)
        link._listener = await asyncio.start_server(link._welcome, "127.0.0.1", 0)
        link.port = link._listener.sockets[0].getsockname()[1]
        return link

    def lead_to(self, host: str, port: int) -> None:
        """Connections from now on."""
        self.target = (host, port)

    @property
    def ports(self) -> set[int]:
        """Of the connections that are open."""
        return {connection.port for connection in self._connections}

    def cut(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    async def lose_answers(self, seconds: float) -> None:
        """What is asked still arrives, but no answer does; then the connections break."""
        doomed = list(self._connections)
        for connection in doomed:
            connection.mute = True
        try:
            await asyncio.sleep(seconds)
        finally:
            for connection in doomed:
                connection.abort()

    async def hold_back(self, seconds: float, *, then_cut: bool) -> None:
        """Nothing comes through, in neither direction, and nobody is told; then what was held back does."""
        self._open.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            if then_cut:
                self.cut()
            self._open.set()

    async def close(self) -> None:
        self._listener.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _welcome(self, reader: StreamReader, client: StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: StreamReader, client: StreamWriter) -> None:
        try:
            await self._open.wait()
            there, server = await asyncio.open_connection(*self.target)
        except OSError:
            client.transport.abort()
            return
        except asyncio.CancelledError:
            client.transport.abort()
            raise
        connection = _Connection(client, server)
        self.ports_seen.add(connection.port)
        self._connections.add(connection)
        both = [
            asyncio.ensure_future(self._pass_on(reader, server)),
            asyncio.ensure_future(self._pass_on(there, client, connection)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(connection)
            for each in both:
                each.cancel()
            # What was sent before its sender died still arrives.
            for writer in (client, server):
                writer.close()
            await asyncio.gather(
                *both, *(each.wait_closed() for each in (client, server)), return_exceptions=True
            )

    async def _pass_on(
        self, reader: StreamReader, writer: StreamWriter, answers: _Connection | None = None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._open.wait()
                if answers is None or not answers.mute:
                    writer.write(data)
                    await writer.drain()
