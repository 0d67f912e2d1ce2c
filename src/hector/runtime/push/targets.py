"""Where webhooks may be: callers name them, and this server stands where they do not.

Whoever may send a message may name a URL. Without a rule they could have this server call what only it can
reach: its own ports, the network behind it, a cloud's metadata. So a target has a public address, and is
asked over https, unless the operator allows more.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

from hector.domain.errors import HectorError

LONGEST_URL = 2048
"""Characters."""

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as texts. Raises `OSError` if it has none."""

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?")
_PORTS = {"https": 443, "http": 80}

_SPECIAL_V4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own, though it looks public
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
_GLOBAL_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = [
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo among them, which holds an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4, as well
        "3fff::/20",
    )
]
_NAT64 = IPv6Network("64:ff9b::/96")
"""How hosts of IPv4 alone are reached from networks of IPv6 alone."""


class TargetError(HectorError):
    """A webhook that may not be called; why, without its name."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in the parts of a request."""

    scheme: str
    host: str
    """Without brackets, in lower case."""
    port: int
    path: str
    """With the query; a `/` at least."""

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


async def system_resolve(host: str, port: int) -> Sequence[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a part of it is empty, or longer than a name has room for
        raise socket.gaierror(socket.EAI_NONAME, "no host has this name") from error
    return [str(place[0]) for *_, place in found]


class Targets:
    def __init__(self, allow: Sequence[str] = (), resolve: Resolve = system_resolve) -> None:
        """`allow`: host names, `*.name` for all below one, addresses and networks."""
        self._networks: list[Network] = []
        self._names: list[str] = []
        for entry in allow:
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                self._names.append(entry.lower().rstrip("."))
        self._resolve = resolve

    def parse(self, url: str) -> Target:
        """What can be said of a URL as it is written. Raises `TargetError`."""
        if len(url) > LONGEST_URL:
            raise TargetError(f"has {len(url)} characters; at most {LONGEST_URL} are allowed")
        if not _VISIBLE.fullmatch(url) or "\\" in url:
            raise TargetError("has characters that no URL has; encode them")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise TargetError("is no URL; wanted one like https://host/path") from None
        if parts.scheme not in _PORTS or not host or port == 0:
            raise TargetError("is no URL that can be called; wanted one like https://host/path")
        if "@" in parts.netloc or "#" in url:
            raise TargetError("has a user, a password or a fragment; wanted credentials in `authentication`")
        address = _address(host)
        if address is None and not _HOST_NAME.fullmatch(host):
            raise TargetError("has a host that is neither a name nor an address")
        if address is not None and not self._admits(host, address):
            raise TargetError(_NOT_PUBLIC)
        if parts.scheme == "http" and not self._trusts(host, address):
            raise TargetError(
                "is not encrypted; wanted https (the operator may allow http for hosts in server.push.allow)"
            )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Those of a host that may be connected to. Raises `TargetError`, and `OSError` if it has none."""
        found = list(dict.fromkeys(await self._resolve(host, port)))
        if good := [text for text in found if (known := _address(text)) and self._admits(host, known)]:
            return good
        raise TargetError(_NOT_PUBLIC)

    def _admits(self, host: str, address: Address) -> bool:
        return is_public(address) or self._trusts(host, address)

    def _trusts(self, host: str, address: Address | None) -> bool:
        """The operator allowed it."""
        host = host.rstrip(".")
        named = any(
            host.endswith(name[1:]) if name.startswith("*.") else host == name for name in self._names
        )
        return named or (address is not None and any(address in network for network in self._networks))


_NOT_PUBLIC = (
    "leads to an address that is not public, which this server does not call"
    " (the operator may allow it in server.push.allow)"
)


def is_public(address: Address) -> bool:
    """It is one host's, somewhere on the internet."""
    match address:
        case IPv4Address():
            return not any(address in network for network in _SPECIAL_V4)
        case _ if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        case _:
            # Outside of it: loopback, link-local, private, multicast, and IPv4 in other clothes (::ffff:...).
            return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
