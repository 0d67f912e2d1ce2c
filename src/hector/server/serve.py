"""The ports of a server, HTTP and gRPC: from free ports to a clean end."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from hector.config import ServerSection
from hector.runtime.patience import Patience
from hector.runtime.runtime import Runtime
from hector.server.a2a.push import write_notice
from hector.server.entrance import Entrance
from hector.server.http.app import HectorApp
from hector.server.http.listener import HttpListener
from hector.server.http.sharing import SharedAccepting
from hector.server.listening import address_of, free_port, listen, only_loopback, port_of, unless, url_of
from hector.server.tls import server_context

_LINGER = 1.0
"""Seconds for clients to read their last answers before their connections are cut."""
_CLOSES_WITHIN = 30
"""Seconds beyond its drain in which a runtime surely closes, though its database does not answer."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens."""

    http: list[socket.socket]
    """Of `listen`; closed by the server."""
    grpc: int
    """0 for any that is free."""
    shared: SharedAccepting | None = None
    """Other processes listen on both, too."""


class Server:
    """The listeners of a server that starts, and then of its runtime. Who made it handles signals."""

    def __init__(self, server: ServerSection, ports: Ports, patience: Patience) -> None:
        """`patience` knows which stores are waited for."""
        self.host, self.port = server.host, port_of(ports.http)
        """Of HTTP."""
        self.loopback = only_loopback(ports.http)
        """Nobody on another machine can reach it."""
        self.grpc_port = ports.grpc
        """0 before `open`, if any is taken."""
        self._drain_timeout = server.drain_timeout
        self._body_limit = server.limits.body
        self._shared = ports.shared
        self._entrance = Entrance(server, patience, loopback=self.loopback)
        self._app = HectorApp(server, self._entrance, loopback=self.loopback)
        self._http = HttpListener(
            self._app,
            ports.http,
            closes_within=int(server.drain_timeout) + _CLOSES_WITHIN,
            tls=server_context(server.tls) if server.tls else None,
            shared=ports.shared,
        )
        self._tls = server.tls
        self._app.grpc_port = ports.grpc
        self._entrance.url = self.url
        self._stop_grpc: Callable[[float], Any] | None = None
        self._runtime: Runtime | None = None
        self._warming: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it can be reached from this machine, over HTTP."""
        return url_of(self.host, self.port, tls=self._tls is not None)

    @property
    def grpc_address(self) -> str:
        """Where it can be reached from this machine, over gRPC, once it is open."""
        return address_of(self.host, self.grpc_port)

    @property
    def running(self) -> asyncio.Task[None]:
        """Ends after `stop`, otherwise only by a defect."""
        return self._http.running

    async def start(self) -> None:
        """Return when HTTP connections are taken; where others do already, they are from `open` on."""
        await self._http.start()

    async def open(self, runtime: Runtime) -> None:
        """Serve its agents from now on, also to those who are connected already; `stop` closes it.

        Raises `ConfigError` where the gRPC port cannot be had.
        """
        self._runtime = runtime
        self._app.open(runtime)
        if self._shared:
            self._shared.begin()
        await self._listen_grpc()
        runtime.start_push(write_notice)
        self._warming = asyncio.create_task(runtime.warm_up())

    async def _listen_grpc(self) -> None:
        # A tenth of a second to import, while HTTP is served already.
        from hector.server.grpc.listener import GrpcListener  # noqa: PLC0415

        grpc = GrpcListener(self._entrance, body_limit=self._body_limit, shared=bool(self._shared))
        self._stop_grpc = grpc.stop
        self.grpc_port = await grpc.start(self.host, self.grpc_port, self._tls)
        self._app.grpc_port = self.grpc_port

    async def stop(self) -> None:
        """Close the listeners, let turns end for `drain_timeout`, answer who waits, close the runtime."""
        self._entrance.stop()
        self._http.close()
        grace = self._drain_timeout + _CLOSES_WITHIN
        closing = [self.running]
        if self._stop_grpc:
            closing.append(asyncio.create_task(self._stop_grpc(grace)))
        if self._warming:
            self._warming.cancel()
        if self._runtime:
            await self._runtime.close(self._drain_timeout)
        _, late = await asyncio.wait(closing, timeout=_LINGER)
        if late:
            self._http.cut_connections()
            if self._stop_grpc:
                await self._stop_grpc(0.0)
        await asyncio.gather(*closing)
        if self._warming:
            await asyncio.gather(self._warming, return_exceptions=True)


async def serve(
    opening: Callable[[Patience], AbstractAsyncContextManager[Runtime]],
    server: ServerSection,
    *,
    stop: asyncio.Event,
    ready: Callable[[Server], None] = lambda _: None,
) -> None:
    """Serve until `stop` is set; `ready` is called when requests are served.

    Connections are taken before that, while `opening` opens the stores: `GET /ready` tells what it waits for.
    Raises `ConfigError` if a port cannot be had, and what `opening` raises.
    """
    stopped = asyncio.create_task(stop.wait())
    try:
        ports = await unless(stopped, _listen(server))
        if ports is not None:
            patience = Patience()
            await _serve(Server(server, ports, patience), opening(patience), stopped, ready)
    finally:
        stopped.cancel()


async def serve_share(
    opening: Callable[[Patience], AbstractAsyncContextManager[Runtime]],
    server: ServerSection,
    ports: Ports,
    *,
    stop: asyncio.Event,
    ready: Callable[[Server], None] = lambda _: None,
) -> None:
    """As `serve`, of what comes through ports from which other processes accept, too."""
    stopped = asyncio.create_task(stop.wait())
    try:
        patience = Patience()
        await _serve(Server(server, ports, patience), opening(patience), stopped, ready)
    finally:
        stopped.cancel()


async def _listen(server: ServerSection) -> Ports:
    """GRPC is on the port that is named, HTTP on the one after it."""
    if not server.port:
        return Ports(await listen(server.host, 0, patience=server.drain_timeout), 0)
    http = await listen(server.host, server.port + 1, patience=server.drain_timeout)
    try:
        return Ports(http, await free_port(server.host, server.port, patience=server.drain_timeout))
    except BaseException:
        for each in http:
            each.close()
        raise


async def _serve(
    ports: Server,
    opening: AbstractAsyncContextManager[Runtime],
    stopped: asyncio.Future[Any],
    ready: Callable[[Server], None],
) -> None:
    async with contextlib.AsyncExitStack() as opened:
        try:
            await ports.start()
            ends = asyncio.wait((stopped, ports.running), return_when=asyncio.FIRST_COMPLETED)
            over = asyncio.create_task(ends)
            runtime = await unless(over, opened.enter_async_context(opening))
            if runtime is not None and not over.done():
                await ports.open(runtime)
                ready(ports)
                await over
        finally:
            # Before the runtime is closed as one that nobody uses: it is drained.
            await ports.stop()
