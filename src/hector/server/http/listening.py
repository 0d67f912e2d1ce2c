"""Sockets that listen, from a free port to an address for clients; nothing heavy is imported for them."""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from hector.domain.errors import ConfigError, HectorError, Problem

logger = logging.getLogger(__name__)

T = TypeVar("T")

BACKLOG = 2048
_PORT_POLL = 0.1
"""Seconds between tries for a port that another server still holds."""


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


async def unless(over: asyncio.Future[Any], work: Coroutine[Any, Any, T]) -> T | None:
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


def url_of(host: str, port: int) -> str:
    """Where a listener on this host can be reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def port_of(sockets: Sequence[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])


def only_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Nobody on another machine can reach them."""
    return all(ipaddress.ip_address(each.getsockname()[0]).is_loopback for each in sockets)


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
    return socket.create_server(address, family=family, backlog=BACKLOG)


def _cannot(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path, text)])
