"""Runs the application on a port: from a free port to a clean end."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hector.config import ServerSection
from hector.runtime.patience import Patience
from hector.runtime.runtime import Runtime
from hector.server.http.app import HectorApp
from hector.server.http.connection import Connection
from hector.server.http.listening import BACKLOG, listen, only_loopback, port_of, unless, url_of
from hector.server.http.sharing import Share, SharedAccepting

_LINGER = 1.0
"""Seconds for clients to read their last answers before their connections are cut."""
_CLOSES_WITHIN = 30
"""Seconds beyond its drain in which a runtime surely closes, though its database does not answer."""


class HttpServer:
    """The HTTP listener of a server that starts, and then of its runtime. Who made it handles signals."""

    def __init__(
        self,
        server: ServerSection,
        sockets: list[socket.socket],
        patience: Patience,
        shared: SharedAccepting | None = None,
    ) -> None:
        """The sockets are of `listen`, and closed by `stop`; `patience` knows which stores are waited for.

        `shared`: other processes accept from the same sockets.
        """
        self.host, self.port = server.host, port_of(sockets)
        self.loopback = only_loopback(sockets)
        """Nobody on another machine can reach it."""
        self._sockets = sockets
        self._drain_timeout = server.drain_timeout
        self._app = HectorApp(server, patience, loopback=self.loopback)
        self._uvicorn = _Uvicorn(_settings(self._app, server.drain_timeout), shared)
        self._shared = shared
        self.running: asyncio.Task[None]
        """Ends after `stop`, otherwise only by a defect."""
        self._runtime: Runtime | None = None
        self._warming: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it can be reached from this machine."""
        return url_of(self.host, self.port)

    async def start(self) -> None:
        """Return when connections are taken; where others do already, they are from `open` on."""
        self.running = asyncio.create_task(self._uvicorn.serve(self._sockets))
        self.running.add_done_callback(lambda _: self._uvicorn.listening.set())
        await self._uvicorn.listening.wait()
        if self.running.done():
            await self.running

    def open(self, runtime: Runtime) -> None:
        """Serve its agents from now on, also to those who are connected already; `stop` closes it."""
        self._runtime = runtime
        self._app.open(runtime)
        if self._shared:
            self._shared.begin()
        self._warming = asyncio.create_task(runtime.warm_up())

    async def stop(self) -> None:
        """Close the listeners, let turns end for `drain_timeout`, answer who waits, close the runtime."""
        self._app.stop()
        for listener in self._uvicorn.servers:
            listener.close()
        self._uvicorn.should_exit = True
        if self._warming:
            self._warming.cancel()
        if self._runtime:
            await self._runtime.close(self._drain_timeout)
        try:
            async with asyncio.timeout(_LINGER):
                await asyncio.shield(self.running)
        except TimeoutError:
            self._uvicorn.cut_connections()
            await self.running
        if self._warming:
            await asyncio.gather(self._warming, return_exceptions=True)


async def serve(
    opening: Callable[[Patience], AbstractAsyncContextManager[Runtime]],
    server: ServerSection,
    *,
    stop: asyncio.Event,
    ready: Callable[[HttpServer], None] = lambda _: None,
) -> None:
    """Serve until `stop` is set; `ready` is called when requests are served.

    Connections are taken before that, while `opening` opens the stores: `GET /ready` tells what it waits for.
    Raises `ConfigError` if the port cannot be had, and what `opening` raises.
    """
    stopped = asyncio.create_task(stop.wait())
    try:
        port = server.port and server.port + 1
        sockets = await unless(stopped, listen(server.host, port, patience=server.drain_timeout))
        if sockets is not None:
            patience = Patience()
            await _serve(HttpServer(server, sockets, patience), opening(patience), stopped, ready)
    finally:
        stopped.cancel()


async def serve_share(
    opening: Callable[[Patience], AbstractAsyncContextManager[Runtime]],
    server: ServerSection,
    *,
    sockets: list[socket.socket],
    shared: SharedAccepting,
    stop: asyncio.Event,
    ready: Callable[[HttpServer], None] = lambda _: None,
) -> None:
    """As `serve`, of what comes through sockets from which other processes accept, too."""
    stopped = asyncio.create_task(stop.wait())
    try:
        patience = Patience()
        await _serve(HttpServer(server, sockets, patience, shared), opening(patience), stopped, ready)
    finally:
        stopped.cancel()


async def _serve(
    http: HttpServer,
    opening: AbstractAsyncContextManager[Runtime],
    stopped: asyncio.Future[Any],
    ready: Callable[[HttpServer], None],
) -> None:
    async with contextlib.AsyncExitStack() as opened:
        try:
            await http.start()
            ends = asyncio.wait((stopped, http.running), return_when=asyncio.FIRST_COMPLETED)
            over = asyncio.create_task(ends)
            runtime = await unless(over, opened.enter_async_context(opening))
            if runtime is not None and not over.done():
                http.open(runtime)
                ready(http)
                await over
        finally:
            # Before the runtime is closed as one that nobody uses: it is drained.
            await http.stop()


def _settings(app: HectorApp, drain_timeout: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        # Longer than the pools of common clients keep a connection, so that they are the ones to close it.
        timeout_keep_alive=75,
        # The second net; `stop` ends connections before.
        timeout_graceful_shutdown=int(drain_timeout) + _CLOSES_WITHIN,
    )


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, shared: SharedAccepting | None) -> None:
        super().__init__(config)
        self.servers = []
        self.listening = asyncio.Event()
        self._shared = shared

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._shared and sockets is not None:
            self._accept_share(self._shared, sockets)
        else:
            await super().startup(sockets)
        self.listening.set()

    def _accept_share(self, shared: SharedAccepting, sockets: list[socket.socket]) -> None:
        def protocol() -> asyncio.Protocol:
            return _Counted(shared.share, self.config, self.server_state, self.lifespan.state)

        shared.add(sockets, protocol)
        # It closes them, waits for them, and asks nothing else of them.
        self.servers = list[Any](shared.acceptors)
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def cut_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Counted(HttpToolsProtocol):
    def __init__(self, share: Share, *args: Any) -> None:
        super().__init__(*args)
        self._share = share

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._share.add(1)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._share.add(-1)
        super().connection_lost(exc)
