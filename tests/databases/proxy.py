"""A TCP proxy that breaks connections at chosen moments."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Loss = Literal["request", "answer"]
_CHUNK = 1 << 20


class Proxy:
    """Forwards to one server. A request is what a client sends before it waits for an answer."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.requests = 0
        """Since the fault was armed last."""
        self._lose: tuple[Loss, int] | None = None
        self.fired = False
        self.refuses = False
        self.seen = asyncio.Event()
        """Set by each request, before it is passed on."""

    def arm(self, loss: Loss | None = None, number: int = 0) -> None:
        """Break the connection at that request, from 0: before it, or its answer, is passed on."""
        self.requests, self.fired = 0, False
        self._lose = (loss, number) if loss else None

    def cut(self) -> None:
        """All connections that are open."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        there, here = await asyncio.open_connection(*self._target)
        both = {writer, here}
        self._writers |= both
        swallows = False

        async def up() -> None:
            nonlocal swallows
            while data := await reader.read(_CHUNK):
                number, self.requests = self.requests, self.requests + 1
                self.seen.set()
                if self._lose == ("request", number):
                    break
                swallows = self._lose == ("answer", number)
                here.write(data)
                await here.drain()

        async def down() -> None:
            while data := await there.read(_CHUNK):
                if swallows:
                    break
                writer.write(data)
                await writer.drain()

        try:
            tasks = [asyncio.ensure_future(each()) for each in (up, down)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.fired |= self._lose is not None and self.requests > self._lose[1]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
