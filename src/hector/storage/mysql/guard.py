"""An asyncmy connection that shows its password to nobody, and goes without TLS only if it may."""

import asyncio
import ssl
from typing import Any

from asyncmy import errors
from asyncmy.connection import Connection
from asyncmy.constants import CLIENT

from hector.storage.server.connecting import tls_error

_LOST = 2013


class NoTlsError(Exception):
    """The server has no TLS, and there must be."""


class UnsafeSignInError(Exception):
    """The server wants the password itself, or encrypted with a key that anybody in between could have sent.

    It would be safe with TLS, and there is none.
    """


class GuardedConnection(Connection):
    host_info: str
    server_capabilities: int
    server_status: int
    _auth_plugin_name: str
    _client_flag: int
    _connected: bool
    _password: bytes
    _proto: Any
    _secure: bool
    """TLS, or a Unix socket."""
    _transport: asyncio.Transport | None
    _ssl_context: ssl.SSLContext | None

    def __init__(self, *, must_use_tls: bool, **arguments: Any) -> None:
        super().__init__(**arguments)  # type: ignore[no-untyped-call]
        # The time is the caller's business; and asyncio.wait_for, with a limit, can lose a cancellation.
        self._connect_timeout = None
        self._must_use_tls = must_use_tls
        self.greeted = False
        """What listens there is such a server."""

    @property
    def met_silence(self) -> bool:
        """There is something that listens, and says nothing; such a server speaks first."""
        return self.host_info != "Not connected" and not self.greeted

    @property
    def broken_by(self) -> Exception | None:
        """What ended the stream, if that was an error."""
        return self._proto.exc if self._proto else None

    @property
    def encrypted(self) -> bool:
        return self._secure and self._ssl_context is not None

    def failed_by_tls(self, error: Exception) -> bool:
        """Another try without it may succeed."""
        if self._ssl_context is None or not self.greeted:
            return False
        lost = isinstance(error, errors.MySQLError) and error.args[:1] == (_LOST,)
        return (
            lost or isinstance(tls_error(error), ssl.SSLError) or isinstance(error.__cause__, ConnectionError)
        )

    def close(self) -> None:
        """At once: asyncmy would leave a connection with TLS to say goodbye for as long as that takes."""
        if self._transport is not None:
            self._transport.abort()
        super().close()

    async def set_session(self, settings: str) -> None:
        """`name = value, ...`"""
        # asyncmy keeps the status that it had where the new one is 0. So it would go on to escape texts for a
        # server with NO_BACKSLASH_ESCAPES after that was unset, and a text could end its own quotes.
        self.server_status = 0
        await self.query(f"SET SESSION {settings}")  # type: ignore[no-untyped-call]

    async def _request_authentication(self) -> Any:
        self.greeted = True
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            if self._must_use_tls:
                raise NoTlsError
            self._ssl_context = None
            self._client_flag &= ~CLIENT.SSL
        if not self._ssl_context and self._auth_plugin_name == "sha256_password":
            # Its first message asks for a key. So it is left to the server to name that way again.
            self._auth_plugin_name = ""
        return await super()._request_authentication()  # type: ignore[misc]

    def write_packet(self, payload: bytes) -> None:
        asks_for_key = payload in (b"\1", b"\2")
        shows_password = self._password and payload == self._password + b"\0"
        if not self._connected and not self._secure and (asks_for_key or shows_password):
            raise UnsafeSignInError
        super().write_packet(payload)
