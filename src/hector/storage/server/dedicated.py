"""One connection beside the pool, for what lives and dies with it: a lock, and being told things."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from hector.domain.errors import StorageError
from hector.storage.server.driver import CollisionError, Connection, ConnectionLostError

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=Connection)
T = TypeVar("T")

_CLOSE_WITHIN = 2.0
"""Seconds for a connection's goodbye."""
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0
"""Seconds between tries to connect; each is twice the one before."""
_SET_UP_WITHIN = 5.0
"""Seconds."""
_STABLE = 10.0
"""Seconds after which a connection that is lost is no sign that the next one will be."""
_TRIES = 2
"""A connection that ended while nobody used it is noticed, on MySQL, by who uses it next."""

_FAILURES = (CollisionError, ConnectionLostError, StorageError, TimeoutError)


class Dedicated(Generic[C]):
    """Made when it is first needed, in the background, and made again when it was lost.

    What cannot be done with it can be done without: no failure of it is raised.
    """

    def __init__(
        self, store: str, connect: Callable[[], Awaitable[C]], *, fit: Callable[[C], bool] = lambda _: True
    ) -> None:
        """A connection that is not `fit`, as none of a pooler is, is closed, and no other is made."""
        self._store = store
        self._connect = connect
        self._fit = fit
        self._set_up: list[Callable[[C], Awaitable[None]]] = []
        self._on_loss: list[Callable[[], None]] = []
        self._connection: C | None = None
        self._made_at = 0.0
        """By the loop's clock."""
        self._in_use = asyncio.Lock()
        self._attempt: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._pause = 0.0
        self._why: str | None = None
        """... there is none, as it was told last."""
        self._over = False
        self._kept = False

    def attach(self, set_up: Callable[[C], Awaitable[None]], on_loss: Callable[[], None]) -> None:
        """Each connection is set up so before it is used; `on_loss` is called when it is no more.

        `on_loss` may be called more than once, and for a connection whose set-up failed.
        """
        self._set_up.append(set_up)
        self._on_loss.append(on_loss)

    def keep(self) -> None:
        """Connect now, and again as soon as a connection is known to be lost."""
        self._kept = True
        self._want()

    async def run(self, do: Callable[[C], Awaitable[T]], patience: float) -> T | None:
        """None where it was not done within so many seconds, for want of a connection or whatever befell it.

        It may be done a second time if the connection was lost at the first.
        """
        try:
            async with asyncio.timeout(patience):
                for _ in range(_TRIES):
                    connection = await self._connected()
                    if connection is None:
                        return None
                    try:
                        return await self._alone(connection, do)
                    except ConnectionLostError:
                        continue
        except _FAILURES as error:
            self._tell(error)
        return None

    def lose(self, connection: C) -> None:
        """End it at once, if that has not happened."""
        connection.abort()
        if connection is not self._connection:
            return
        self._connection = None
        self._tell_loss()
        if self._now() - self._made_at > _STABLE:
            self._pause = 0.0
        self._try_later()

    async def close(self) -> None:
        self._over = True
        if self._retry:
            self._retry.cancel()
        if attempt := self._attempt:
            # Not cancelled at once: asyncio leaves a socket open where that meets the end of a TLS handshake.
            await asyncio.wait((attempt,), timeout=_CLOSE_WITHIN)
            attempt.cancel()
            await asyncio.wait((attempt,), timeout=_CLOSE_WITHIN)
        connection, self._connection = self._connection, None
        if connection is not None:
            self._tell_loss()
            await self._say_goodbye(connection)

    # --- connecting

    async def _connected(self) -> C | None:
        if self._connection is not None and not self._connection.usable:
            self.lose(self._connection)
        if self._connection is None:
            self._want()
            if self._attempt:
                await asyncio.wait((self._attempt,))
        return self._connection

    def _want(self) -> None:
        if self._retry:
            self._retry.cancel()
            self._retry = None
        if self._over or self._attempt or self._connection is not None:
            return
        self._attempt = asyncio.get_running_loop().create_task(self._try())

    async def _try(self) -> None:
        try:
            connection = await self._connect()
            try:
                made = await self._make_ready(connection)
            except BaseException:
                connection.abort()
                raise
        except _FAILURES as error:
            self._tell(error)
            self._tell_loss()
            made = False
        finally:
            self._attempt = None
        if not made:
            self._try_later()

    async def _make_ready(self, connection: C) -> bool:
        if not self._fit(connection):
            self._over = True
        if self._over:
            await self._say_goodbye(connection)
            return False
        async with asyncio.timeout(_SET_UP_WITHIN):
            for set_up in self._set_up:
                await set_up(connection)
        if not connection.usable:
            raise ConnectionLostError
        self._connection, self._made_at, self._why = connection, self._now(), None
        return True

    def _try_later(self) -> None:
        if self._kept and not self._over and self._retry is None:
            self._pause = min(_LAST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._want)

    # --- using

    async def _alone(self, connection: C, do: Callable[[C], Awaitable[T]]) -> T:
        async with self._in_use:
            if connection is not self._connection:
                raise ConnectionLostError
            try:
                return await do(connection)
            except BaseException:
                # Whatever it was, nobody knows what the connection would answer next.
                self.lose(connection)
                raise

    async def _say_goodbye(self, connection: C) -> None:
        try:
            async with asyncio.timeout(_CLOSE_WITHIN), self._in_use:
                await connection.close()
        except Exception:  # noqa: BLE001  # whatever it is, nobody needs this connection any more
            connection.abort()

    def _tell_loss(self) -> None:
        for each in self._on_loss:
            each()

    def _tell(self, error: BaseException) -> None:
        why = str(error) or type(error).__name__
        if why != self._why:
            self._why = why
            logger.info(
                "session store %r: the heartbeat has no connection of its own now, and so no lock: %s",
                self._store,
                why,
            )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
