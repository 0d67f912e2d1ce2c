"""Why a database server cannot be connected to, where that does not depend on its kind."""

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from hector.domain.errors import ServerFullError, StoreOpenError, StoreUnreachableError
from hector.storage.settings import ServerSettings

# Of OpenSSL's X509_V_ERR_...
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_HOST = frozenset({62, 64})
_LONGEST_QUOTE = 300


@dataclass(frozen=True, slots=True)
class Server:
    """What errors say of one. Its methods return them for the caller to raise."""

    settings: ServerSettings
    product: str
    """PostgreSQL, MySQL."""
    address: str
    """host:port, or the path of a Unix socket."""
    ask: str
    """The command that tells whether it is up."""

    @property
    def name(self) -> str:
        return f"the server at {self.address}"

    def refused(self, why: str) -> StoreOpenError:
        """Until somebody changes something."""
        return StoreOpenError(self.settings.store, why)

    def away(self, why: str) -> StoreUnreachableError:
        """For now."""
        return StoreUnreachableError(self.settings.store, why)

    def full(self, said: str) -> ServerFullError:
        return ServerFullError(
            self.settings.store,
            f"{self.name} takes no more connections ({one_line(said)});"
            " lower max_conns of those who use it, or raise its limit",
        )

    def too_late(self) -> StoreUnreachableError:
        return self.away(
            f"no answer from {self.address} within connect_timeout ({self.settings.connect_timeout:g} s);"
            f" check host, port, the network between, and that a {self.product} server is there: {self.ask}"
        )

    def foreign(self) -> StoreOpenError:
        return self.refused(
            f"what listens at {self.address} is no {self.product} server; check driver, host and port"
        )

    def without_tls(self) -> StoreOpenError:
        return self.refused(
            f"ssl_mode {self.settings.tls.mode} wants TLS, and {self.name} offers none;"
            " enable TLS there, or, in a network that you trust, set ssl_mode: disable"
        )

    def silent(self) -> StoreUnreachableError:
        return self.away(
            f"{self.name} took the connection and said nothing within connect_timeout"
            f" ({self.settings.connect_timeout:g} s); it hangs, or is no {self.product} server: {self.ask}"
        )

    def unreachable(self, error: OSError) -> StoreUnreachableError:
        """Nothing was connected."""
        if isinstance(error, socket.gaierror):
            return self.away(
                f"host {self.settings.host!r} is not known here ({(error.strerror or '').lower()});"
                " check host, and the name service of this machine"
            )
        numbers = set(_numbers(error))
        if not numbers and isinstance(error, TimeoutError):
            return self.too_late()
        if numbers == {errno.ECONNREFUSED}:
            return self.away(
                f"nothing listens at {self.address} (connection refused);"
                f" start the server, or correct host and port: {self.ask}"
            )
        if numbers == {errno.ENOENT}:
            return self.away(
                f"there is no socket {self.address}; start the server, or correct host and port: {self.ask}"
            )
        if numbers == {errno.EACCES}:
            return self.away(f"this user may not use {self.address}; check the permissions of its folder")
        why = ", ".join(sorted(map(os.strerror, numbers))) or type(error).__name__
        return self.away(
            f"{self.address} cannot be reached ({why.lower()}); check host, port and the network between"
        )

    def cut_off(self) -> StoreUnreachableError:
        tls = self.settings.tls
        why = "starts up or shuts down"
        if tls.cert and tls.mode != "disable":
            why = "starts up, shuts down, or distrusts ssl_cert"
        return self.away(
            f"{self.name} closed the connection without a word; it {why}: see its log, or {self.ask}"
        )

    def tls_failed(self, error: ssl.SSLError) -> StoreOpenError:
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return self.cut_off()
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._untrusted(error)
        reason = (error.reason or type(error).__name__).replace("_", " ").lower()
        if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
            cert = self.settings.tls.cert
            what = f"refuses the client certificate in {cert}" if cert else "demands a client certificate"
            return self.refused(
                f"{self.name} {what} ({reason});"
                " set ssl_cert and ssl_key to one that an authority signed which the server trusts"
            )
        return self.refused(f"TLS with {self.name} failed ({reason}); it must offer TLS 1.2 or newer")

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> StoreOpenError:
        certificate, found = f"the certificate of {self.name}", one_line(error.verify_message)
        if error.verify_code in _WRONG_HOST:
            return self.refused(
                f"{certificate} is for another host ({found}); set host to a name that stands in it,"
                " or have one issued for this host (ssl_mode verify-ca does not look at the name)"
            )
        if error.verify_code == _EXPIRED:
            return self.refused(f"{certificate}, or that of who signed it, has expired; renew it there")
        if error.verify_code == _NOT_YET_VALID:
            return self.refused(f"{certificate} is not valid yet; check the clocks of both machines")
        root = self.settings.tls.root_cert
        who = f"nobody in ssl_root_cert ({root})" if root else "nobody whom this system trusts"
        return self.refused(
            f"{certificate} is not trusted ({found}): it was signed by {who};"
            " set ssl_root_cert to the certificate of the authority that signed it"
        )


def notice_silence(transport: asyncio.BaseTransport | None) -> None:
    """Have the system end a connection that the network has forgotten, long before TCP itself gives up.

    A firewall drops idle flows without a word; the next statement, a heartbeat perhaps, would wait
    for minutes.
    """
    connection: socket.socket | None = transport.get_extra_info("socket") if transport else None
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # In seconds, but the last; not every system has all of them.
    for name, value in (
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 8_000),
    ):
        if number := getattr(socket, name, None):
            connection.setsockopt(socket.IPPROTO_TCP, number, value)


def check_texts(settings: ServerSettings) -> None:
    """Raise `StoreOpenError` for what no server takes, before a driver sees it and quotes it."""
    for key in ("user", "password", "database"):
        value: str = getattr(settings, key)
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise StoreOpenError(settings.store, f"{key}: holds NUL, or bytes that are not UTF-8")


def uses_tls(settings: ServerSettings) -> bool:
    """Where the server has it. Nobody listens on a Unix socket, so nothing is encrypted there."""
    return settings.tls.mode != "disable" and not settings.host.startswith("/")


def must_use_tls(settings: ServerSettings) -> bool:
    return uses_tls(settings) and settings.tls.mode != "prefer"


def host_and_port(settings: ServerSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The one that an error comes from, if any."""
    while error:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def one_line(said: str) -> str:
    """A server's own words, and not too many."""
    return " ".join(said.split())[:_LONGEST_QUOTE].rstrip(".")


def _numbers(error: OSError) -> Iterator[int]:
    if error.errno:
        yield error.errno
    else:
        # asyncio, of a name with several addresses: "Multiple exceptions: [Errno 111] ..., [Errno 101] ..."
        yield from map(int, re.findall(r"\[Errno (\d+)\]", str(error)))
