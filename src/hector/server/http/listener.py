"""The HTTP port: from its sockets to a clean end."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator
from typing import Any

import uvicorn

from hector.server.http.app import HectorApp
from hector.server.http.connection import Connection
from hector.server.http.sharing import Share, SharedAccepting
from hector.server.listening import BACKLOG


class HttpListener:
    def __init__(
        self,
        app: HectorApp,
        sockets: list[socket.socket],
        *,
        closes_within: int,
        tls: ssl.SSLContext | None = None,
        shared: SharedAccepting | None = None,
    ) -> None:
        """The sockets are of `listen`, and closed by `close`; `shared`: other processes accept from them.

        `closes_within`: seconds after `close` in which the requests that run surely end.
        """
        self._sockets = sockets
        self._uvicorn = _Uvicorn(_settings(app, closes_within, tls), shared)
        self.running: asyncio.Task[None]
        """Ends after `close`, otherwise only by a defect."""

    async def start(self) -> None:
        """Return when connections are taken; where others share the sockets, that begins elsewhere."""
        self.running = asyncio.create_task(self._uvicorn.serve(self._sockets))
        self.running.add_done_callback(lambda _: self._uvicorn.listening.set())
        await self._uvicorn.listening.wait()
        if self.running.done():
            await self.running

    def close(self) -> None:
        """Take no further connection; `running` ends when those that are open have been answered."""
        for listener in self._uvicorn.servers:
            listener.close()
        self._uvicorn.should_exit = True

    def cut_connections(self) -> None:
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()


class _Config(uvicorn.Config):
    tls: ssl.SSLContext | None = None

    def load(self) -> None:
        super().load()
        self.ssl = self.tls


def _settings(app: HectorApp, closes_within: int, tls: ssl.SSLContext | None) -> uvicorn.Config:
    made = _Config(
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
        # The second net; connections are cut before.
        timeout_graceful_shutdown=closes_within,
    )
    made.tls = tls
    return made


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

        shared.add(sockets, protocol, self.config.ssl)
        # It closes them, waits for them, and asks nothing else of them.
        self.servers = list[Any](shared.acceptors)
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Counted(Connection):
    def __init__(self, share: Share, *args: Any) -> None:
        super().__init__(*args)
        self._share = share

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._share.add(1)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._share.add(-1)
        super().connection_lost(exc)
