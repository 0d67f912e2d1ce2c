"""Sockets that listen, from a free port to an address for clients; nothing heavy is imported for them."""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
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
                raise port_taken(host, port) from None
        if not waits:
            logger.warning("port %d is in use; waiting up to %g s for it", port, patience)
            waits = True
        # Nothing tells when a port gets free.
        await asyncio.sleep(_PORT_POLL)


async def free_port(host: str, port: int, *, patience: float) -> int:
    """The port, when nobody listens on it any more. Raises `ConfigError`."""
    for each in await listen(host, port, patience=patience):
        each.close()
    return port


def reserve(host: str, port: int) -> list[socket.socket]:
    """Keep a port for processes that share it; nobody is connected to what is bound and does not listen.

    0 for any. Raises `OSError`.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    return _bind(addresses, _reservation)


def port_taken(host: str, port: int) -> ConfigError:
    return _cannot(
        "server.port",
        f"port {port} on {host} is in use by another program; stop that, or choose another with --port"
        " (gRPC is served there, and HTTP on the port after it)",
    )


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


def url_of(host: str, port: int, *, tls: bool = False) -> str:
    """Where an HTTP listener on this host can be reached from this machine."""
    return f"http{'s' if tls else ''}://{address_of(host, port)}"


def address_of(host: str, port: int) -> str:
    """As `url_of`, for any listener."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_of(sockets: Sequence[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])


def only_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Nobody on another machine can reach them."""
    return all(ipaddress.ip_address(each.getsockname()[0]).is_loopback for each in sockets)


def _bind(
    addresses: Sequence[tuple[int, tuple[object, ...]]],
    make: Callable[[int, tuple[object, ...]], socket.socket] | None = None,
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for family, (host, port, *rest) in addresses:
            # Any free port is chosen by the first, and the others take the same.
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append((make or _listener)(family, (host, chosen, *rest)))
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
    made = socket.create_server(address, family=family, backlog=BACKLOG)
    # Whoever connects inherits it: the body of an answer does not wait until its head has arrived. uvloop
    # sets it by itself, and asyncio does not for sockets that are made so.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _reservation(family: int, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def _cannot(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path, text)])
