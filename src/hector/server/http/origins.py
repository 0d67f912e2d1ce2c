"""Keeps foreign web pages out: what a browser says of where a request comes from and goes to."""

from urllib.parse import urlsplit

from hector.domain.errors import ForbiddenError

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Origins:
    """The hosts and origins that requests may name."""

    def __init__(self, bind_host: str, base_url: str | None, *, loopback: bool) -> None:
        base = urlsplit(base_url) if base_url else None
        self._base_origin = f"{base.scheme}://{base.netloc}".lower() if base else None
        named = {bind_host.lower(), (base.hostname or "") if base else ""}
        self._hosts = _LOOPBACK_NAMES | named
        self._loopback = loopback

    def check(self, host: bytes | None, origin: bytes | None) -> None:
        """Raises `ForbiddenError`.

        On loopback the host must be known; a name that was made to point there (DNS rebinding) is not.
        """
        if self._loopback and host is not None and host_name(host) not in self._hosts:
            raise ForbiddenError(
                "the Host header names a host that this server is not; use localhost, or set server.base_url",
                field="host",
            )
        if origin is not None and not self._same(origin.decode("latin-1").lower(), host):
            raise ForbiddenError(
                "requests from web pages of another origin are not served; call this server from its own"
                " origin (server.base_url)",
                field="origin",
            )

    def _same(self, origin: str, host: bytes | None) -> bool:
        if self._base_origin is not None and origin == self._base_origin:
            return True
        scheme, _, authority = origin.partition("://")
        return (
            scheme in {"http", "https"} and host is not None and authority == host.decode("latin-1").lower()
        )


def host_name(host: bytes) -> str:
    """`[::1]:8091` -> `::1`; `LocalHost.:80` -> `localhost`."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")
