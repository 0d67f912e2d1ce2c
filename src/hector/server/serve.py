"""Runs the application on a port: from a free port to a clean end."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Generator, Sequence

import uvicorn

from hector.config import ServerSection
from hector.domain.errors import ConfigError, Problem
from hector.runtime.runtime import Runtime
from hector.server.app import HectorApp, build_app

logger = logging.getLogger(__name__)

_PORT_POLL = 0.1
"""Seconds between tries for a port that another server still holds."""
_LINGER = 1.0
"""Seconds for clients to read their last answers before their connections are cut."""
_BACKLOG = 2048


class HttpServer:
    """The HTTP listener of a runtime. Signals are its caller's business."""

    def __init__(self, runtime: Runtime, server: ServerSection) -> None:
        self._runtime = runtime
        self._server = server
        self.host, self.port = server.host, 0
        """The port is known once `start` has returned."""
        self.loopback = False
        """Nobody on another machine can reach it; known then, too."""
        self._app: HectorApp
        self._uvicorn: _Uvicorn
        self._running: asyncio.Task[None]
        self._warming: asyncio.Task[None]

    @property
    def url(self) -> str:
        """Where it can be reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Return when connections are taken; the port may take `drain_timeout`. Raises `ConfigError`."""
        port = self._server.port and self._server.port + 1
        sockets = await listen(self._server.host, port, patience=self._server.drain_timeout)
        self.port = sockets[0].getsockname()[1]
        self.loopback = all(ipaddress.ip_address(each.getsockname()[0]).is_loopback for each in sockets)
        self._app = build_app(self._runtime, self._server, loopback=self.loopback)
        self._uvicorn = _Uvicorn(_settings(self._app, self._server.drain_timeout))
        self._running = asyncio.create_task(self._uvicorn.serve(sockets))
        await self._uvicorn.listening.wait()
        self._warming = asyncio.create_task(self._runtime.warm_up())

    async def wait(self) -> None:
        """Until it ends, which without `stop` it does only by a defect."""
        await asyncio.shield(self._running)

    async def stop(self) -> None:
        """Close the listeners, let turns end for `drain_timeout`, answer who waits, close the runtime."""
        self._app.stopping = True
        for listener in self._uvicorn.servers:
            listener.close()
        self._uvicorn.should_exit = True
        self._warming.cancel()
        await self._runtime.close(self._server.drain_timeout)
        try:
            async with asyncio.timeout(_LINGER):
                await asyncio.shield(self._running)
        except TimeoutError:
            self._uvicorn.cut_connections()
            await self._running
        await asyncio.gather(self._warming, return_exceptions=True)


async def serve(
    runtime: Runtime,
    server: ServerSection,
    *,
    stop: asyncio.Event,
    ready: Callable[[HttpServer], None] = lambda _: None,
) -> None:
    """Serve until `stop` is set; `ready` is called when connections are taken. Raises `ConfigError`."""
    http = HttpServer(runtime, server)
    starting = asyncio.create_task(http.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # it still waits for its port
        starting.cancel()
        await asyncio.wait((starting,))
        return
    try:
        await starting
    except BaseException:
        stopped.cancel()
        raise
    ended = asyncio.create_task(http.wait())
    try:
        ready(http)
        await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        ended.cancel()
        await http.stop()


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
        http="httptools",
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
