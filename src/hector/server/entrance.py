"""Who comes in, and from when on: the same for all ports of a server."""

import asyncio
import contextlib
from collections.abc import Sequence

from hector.config import ServerSection
from hector.domain.errors import StoreUnavailableError
from hector.runtime.patience import Patience
from hector.server.a2a.operations import Operations
from hector.server.auth import BearerTokens, Caller

_HOLD = 1.0
"""Seconds that a request waits while stores are opened, so that none is refused where they are there."""


class Entrance:
    def __init__(
        self, server: ServerSection, patience: Patience, *, loopback: bool, hold: float = _HOLD
    ) -> None:
        """`loopback`: every address that the server listens on is this machine's own."""
        self.stopping = False
        """Nothing new is taken any more."""
        self.tokens = BearerTokens(server.auth.tokens, loopback=loopback)
        self.url = ""
        """Where this server can be reached over HTTP from this machine."""
        self._patience, self._hold = patience, hold
        self._operations: Operations | None = None
        """None as long as stores are being opened."""
        self._decided = asyncio.Event()
        """It is open, or will never be."""

    @property
    def is_open(self) -> bool:
        return self._operations is not None

    @property
    def waits_for(self) -> Sequence[str]:
        """Why it is not open yet."""
        return self._patience.problems or ["the server is starting"]

    def open(self, operations: Operations) -> None:
        """Let callers in from now on, those who wait already first."""
        self._operations = operations
        self._decided.set()

    def stop(self) -> None:
        """Take nothing new any more."""
        self.stopping = True
        self._decided.set()

    def check_stopping(self) -> None:
        """Raises `StoreUnavailableError`."""
        if self.stopping:
            raise StoreUnavailableError("this server is stopping; send the request again")

    def caller(self, authorization: bytes | None) -> Caller:
        """By the header of that name. Raises `UnauthenticatedError`."""
        return self.tokens.caller(authorization)

    async def operations(self) -> Operations:
        """Waits a moment where they are not there yet. Raises `StoreUnavailableError`."""
        if self._operations is None and not self._patience.failing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._hold):
                    await self._decided.wait()
        self.check_stopping()
        if self._operations is None:
            raise StoreUnavailableError(
                "this server is starting and waits for a session store (GET /ready tells more);"
                " send the request again"
            )
        return self._operations
