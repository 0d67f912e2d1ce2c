"""Runs the application on a port: from a free port to a clean end."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import uvicorn

from hector.config import ServerSection
from hector.domain.errors import ConfigError, HectorError, Problem
from hector.runtime.patience import Patience
from hector.runtime.runtime import Runtime
from hector.server.app import HectorApp
from hector.server.connection import Connection
from hector.server.listening import BACKLOG, listen, only_loopback, port_of, unless, url_of
from hector.server.sharing import Share, SharedAccepting

_LINGER = 1.0
"""Seconds for clients to read their last answers before their connections are cut."""


class HttpServer:
    """The HTTP listener of a server that starts, and then of its runtime. Who made it handles signals."""

    def __init__(self, server: ServerSection, sockets: list[socket.socket], patience: Patience) -> None:
        """The sockets are of `listen`, and closed by `stop`; `patience` knows which stores are waited for."""
        addresses = [each.getsockname() for each in sockets]
        self.host, self.port = server.host, int(addresses[0][1])
        self.loopback = all(ipaddress.ip_address(host).is_loopback for host, *_ in addresses)
        """Nobody on another machine can reach it."""
        self._sockets = sockets
        self._drain_timeout = server.drain_timeout
        self._app = HectorApp(server, patience, loopback=self.loopback)
        self._uvicorn = _Uvicorn(_settings(self._app, server.drain_timeout))
        self.running: asyncio.Task[None]
        """Ends after `stop`, otherwise only by a defect."""
        self._runtime: Runtime | None = None
        self._warming: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it can be reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Return when connections are taken."""
        self.running = asyncio.create_task(self._uvicorn.serve(self._sockets))
        self.running.add_done_callback(lambda _: self._uvicorn.listening.set())
        await self._uvicorn.listening.wait()
        if self.running.done():
            await self.running

    def open(self, runtime: Runtime) -> None:
        """Serve its agents from now on, also to those who are connected already; `stop` closes it."""
        self._runtime = runtime
        self._app.open(runtime)
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
        sockets = await _unless(stopped, listen(server.host, port, patience=server.drain_timeout))
        if sockets is not None:
            await _serve_on(sockets, opening, server, stopped, ready)
    finally:
        stopped.cancel()


async def _serve_on(
    sockets: list[socket.socket],
    opening: Callable[[Patience], AbstractAsyncContextManager[Runtime]],
    server: ServerSection,
    stopped: asyncio.Future[Any],
    ready: Callable[[HttpServer], None],
) -> None:
    patience = Patience()
    http = HttpServer(server, sockets, patience)
    async with contextlib.AsyncExitStack() as opened:
        try:
            await http.start()
            ends = asyncio.wait((stopped, http.running), return_when=asyncio.FIRST_COMPLETED)
            over = asyncio.create_task(ends)
            runtime = await _unless(over, opened.enter_async_context(opening(patience)))
            if runtime is not None and not over.done():
                http.open(runtime)
                ready(http)
                await over
        finally:
            # Before the runtime is closed as one that nobody uses: it is drained.
            await http.stop()


async def _unless(over: asyncio.Future[Any], work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None if that was broken off because `over` came first."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait((over, working), return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        await asyncio.wait((working,))
    if over.done() and (working.cancelled() or isinstance(working.exception(), HectorError)):
        return None
    return working.result()


async def listen(host: str, port: int, *, patience: float) -> list[socket.socket]:
    """Sockets for every address of a host, all on one port; 0 for any. Raises `ConfigError`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _cannot("server.host", f"no address is known for host {host!r} ({error.strerror})") from error
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    waits = False
    while True:
        try:
            return _bind(addresses)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _cannot("server.host", f"cannot listen on {host} port {port}: {_why(error)}") from error
            if loop.time() >= deadline:
                raise _cannot(
                    "server.port",
                    f"port {port} on {host} is in use by another program; stop that, or choose another with"
                    " --port (HTTP is served on the port after it)",
                ) from None
        if not waits:
            logger.warning("port %d is in use; waiting up to %g s for it", port, patience)
            waits = True
        # Nothing tells when a port gets free.
        await asyncio.sleep(_PORT_POLL)


def _bind(addresses: Sequence[tuple[int, tuple[object, ...]]]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for family, (host, port, *rest) in addresses:
            # Any free port is chosen by the first, and the others take the same.
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_listener(family, (host, chosen, *rest)))
            except OSError as error:
                # A name like localhost may stand for an address that this machine has not got.
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT} or len(addresses) == 1:
                    raise
    except BaseException:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return sockets


def _why(error: OSError) -> str:
    """In the system's words: asyncio and socket add Python's view of the address to `strerror`."""
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _listener(family: int, address: tuple[object, ...]) -> socket.socket:
    return socket.create_server(address, family=family, backlog=_BACKLOG)


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
        backlog=_BACKLOG,
        # Longer than the pools of common clients keep a connection, so that they are the ones to close it.
        timeout_keep_alive=75,
        # The second net; `stop` ends connections before.
        timeout_graceful_shutdown=int(drain_timeout + 5 * _LINGER) + 1,
    )


def _cannot(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path, text)])


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers = []
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def cut_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
