"""Connections to a server that its callers share: who waits first is served first.

No lock guards it: what it decides, it decides between two awaits, on one event loop.
"""

import asyncio
import contextlib
import functools
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from hector.domain.errors import StorageError, StoreUnavailableError

logger = logging.getLogger(__name__)

_CLOSE_WITHIN = 2.0
"""Seconds for a connection's goodbye."""
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0
"""Seconds between tries to connect; each is twice the one before."""
_GRACE = 0.5
"""Seconds that a caller waits beyond the timeout for a connect that is about to say why it fails."""
_JITTER = 0.1
"""The part of a lifetime by which it may be shorter, so that those of one burst do not end at once."""
_LINGER = 1.0
"""Seconds that a surplus connection stays.

Closed at once, it would have to be opened again for the next of several callers who take turns.
"""
_PROBE_AFTER = 60.0
"""Seconds after which a server that refused a connection is asked for one more."""
_SELDOM = 30.0
"""Seconds in which a warning is not repeated."""
_SLOW = 1.0
"""Seconds of waiting that are worth a warning."""

_Warning: TypeAlias = Literal["slow", "full", "failed"]


class Pooled(Protocol):
    """A connection; it equals itself only."""

    @property
    def usable(self) -> bool:
        """False once the server or the network closed it, or nobody knows its state; told without I/O."""
        ...

    async def close(self) -> None:
        """Say goodbye to the server."""
        ...

    def abort(self) -> None:
        """End it at once, without I/O, whatever its state; one that has ended, too."""
        ...


C = TypeVar("C", bound=Pooled)


@dataclass(slots=True, eq=False)
class _Member(Generic[C]):
    connection: C
    expires_at: float
    """By the loop's clock, as all times here."""
    idle_since: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter(Generic[C]):
    future: asyncio.Future[C]
    since: float


class Pool(Generic[C]):
    """At most `max_conns` connections, opened when they are needed and kept for the next caller.

    It belongs to the event loop on which it was made.
    """

    def __init__(
        self,
        store: str,
        connect: Callable[[], Awaitable[C]],
        *,
        full: type[Exception],
        max_conns: int,
        max_idle: int,
        lifetime: float,
        timeout: float,
    ) -> None:
        """`full` is what `connect` raises where the server is there, but takes no more connections.

        The numbers are those of `ServerSettings`; `timeout` is its `connect_timeout`.
        """
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._connect = connect
        self._full = full
        self._max_idle = max_idle
        self._lifetime = lifetime or math.inf
        self._timeout = timeout
        self._is_closed = asyncio.Event()

        self._in_use: dict[C, _Member[C]] = {}
        self._idle: deque[_Member[C]] = deque()
        """The last used last. None is idle while somebody waits."""
        self._opening: set[asyncio.Task[C | None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        """To the server they are connections until they are closed."""
        self._ceiling = _Ceiling(max_conns)
        self._failure: BaseException | None = None
        """Of the last try to connect; None if it succeeded."""
        self._pause = 0.0

        self._waiters: deque[_Waiter[C]] = deque()
        """The first to come first. One that was cancelled stays until its caller has noticed."""
        self._watcher: asyncio.TimerHandle | None = None
        """There is one while somebody waits."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_at = math.inf
        self._warned_at: dict[_Warning, float] = dict.fromkeys(("slow", "full", "failed"), -math.inf)

        self.waited = 0
        """How many callers found no idle connection."""
        self.wait_seconds = 0.0
        """For how long they waited, all together."""

    @property
    def size(self) -> int:
        """Connections that exist, with those that are being opened or closed."""
        return self._taken + len(self._opening)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def ceiling(self) -> int:
        """`max_conns`, or fewer while the server refuses more."""
        return self._ceiling.now

    async def acquire(self) -> C:
        """A connection for this caller alone, to be given to `release`.

        Raises `StoreUnavailableError` if none is to be had within the timeout, or the pool is closed;
        and what `connect` raised if there is no connection at all.
        """
        idle = self._idle
        while idle:
            member = idle.pop()
            connection = member.connection
            if connection.usable:
                self._in_use[connection] = member
                return connection
            connection.abort()
        return await self._wait()

    def release(self, connection: C) -> None:
        """Take it back in whatever state it is; what takes time is done in the background."""
        member = self._in_use.pop(connection, None)
        if member is None:
            raise RuntimeError("the connection was not acquired from this pool, or was released already")
        if self._is_closed.is_set() or not connection.usable:
            connection.abort()
            self._open_more()
        elif self._loop.time() < member.expires_at:
            self._place(member)
        else:
            self._close_in_background(member)

    def forget_idle(self) -> None:
        """Drop all that are idle: one was found dead, so the others are in doubt."""
        while self._idle:
            self._close_in_background(self._idle.pop())

    async def close(self) -> None:
        """Serve nobody any more; returns when all are closed but those in use, which end when released."""
        self._is_closed.set()
        for timer in (self._sweeper, self._watcher):
            if timer is not None:
                timer.cancel()
        while self._tell_first(StoreUnavailableError("the session store is closed")):
            pass
        self.forget_idle()
        if in_background := self._opening | self._closing:
            # Not cancelled at once: asyncio leaves a socket open where that meets the end of a TLS handshake.
            await asyncio.wait(in_background, timeout=_CLOSE_WITHIN)
        for task in self._opening:
            task.cancel()
        if in_background := self._opening | self._closing:
            await asyncio.wait(in_background, timeout=_CLOSE_WITHIN)

    # --- those who wait

    async def _wait(self) -> C:
        if self._is_closed.is_set():
            raise StoreUnavailableError("the session store is closed")
        waiter: _Waiter[C] = _Waiter(self._loop.create_future(), self._loop.time())
        self._waiters.append(waiter)
        self.waited += 1
        self._open_more()
        self._watch()
        try:
            return await waiter.future
        except BaseException:
            self._withdraw(waiter)
            raise
        finally:
            self.wait_seconds += self._loop.time() - waiter.since

    def _withdraw(self, waiter: _Waiter[C]) -> None:
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            # It was handed a connection, and cancelled before it knew.
            self.release(future.result())
        else:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    def _first_waiter(self) -> asyncio.Future[C] | None:
        while self._waiters:
            future = self._waiters.popleft().future
            if not future.done():
                return future
        return None

    def _tell_first(self, error: BaseException) -> bool:
        """Whether anybody was there to be told."""
        future = self._first_waiter()
        if future is not None:
            future.set_exception(error)
        return future is not None

    def _watch(self) -> None:
        if self._watcher is not None or not self._waiters:
            return
        # They came in this order and all wait for the same time, so the first is the next to be looked at.
        since = self._waiters[0].since
        deadline = since + self._timeout
        slow = max(since + _SLOW, self._warned_at["slow"] + _SELDOM)
        now = self._loop.time()
        due = min((due for due in (slow, deadline, deadline + _GRACE) if due > now), default=now)
        self._watcher = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """Tell those whose time is over, and the log if others wait for long."""
        self._watcher = None
        now = self._loop.time()
        grace = _GRACE if self._opening and not self._established else 0.0
        while self._waiters and self._waiters[0].since + self._timeout + grace <= now:
            self._tell_first(self._too_late())
        if self._established and self._waiters and self._waiters[0].since + _SLOW <= now:
            self._warn("slow", self._slow())
        self._watch()

    def _slow(self) -> str:
        if self._taken >= self._ceiling.highest:
            advice = f"raise session_stores.{self._store}.sql.max_conns, or look for slow statements"
        elif self._taken >= self._ceiling.now:
            advice = "its server takes no more: raise its limit, or look for slow statements"
        else:
            advice = "no other could be opened yet"
        return (
            f"session store {self._store!r}: all {self._established} connections are in use,"
            f" {self.waiting} waiting; {advice}"
        )

    def _too_late(self) -> StoreUnavailableError:
        name, used = f"session store {self._store!r}", self._established
        if used >= self._ceiling.highest:
            setting = f"session_stores.{self._store}.sql.max_conns"
            text = f"all {used} connections of {name} are in use; try again, or raise {setting}"
        elif used:
            text = f"all {used} connections of {name} are in use, and no other can be opened now; try again"
        elif isinstance(self._failure, self._full):
            text = f"the server of {name} takes no more connections now; try again"
        else:
            text = f"{name} cannot be reached now; try again"
        error = StoreUnavailableError(text)
        error.__cause__ = self._failure
        return error

    def _warn(self, kind: _Warning, text: str) -> None:
        now = self._loop.time()
        if now - self._warned_at[kind] >= _SELDOM:
            self._warned_at[kind] = now
            logger.warning("%s", text)

    # --- connections

    @property
    def _established(self) -> int:
        return len(self._idle) + len(self._in_use)

    @property
    def _taken(self) -> int:
        return self._established + len(self._closing)

    def _place(self, member: _Member[C]) -> None:
        """Hand a connection to the first who waits, or keep it."""
        connection = member.connection
        if future := self._first_waiter():
            self._in_use[connection] = member
            future.set_result(connection)
            return
        member.idle_since = self._loop.time()
        self._idle.append(member)
        surplus = len(self._idle) > self._max_idle
        self._sweep_by(min(member.expires_at, member.idle_since + _LINGER) if surplus else member.expires_at)

    def _sweep_by(self, moment: float) -> None:
        if moment < self._sweep_at:
            if self._sweeper is not None:
                self._sweeper.cancel()
            self._sweep_at = moment
            self._sweeper = self._loop.call_at(moment, self._sweep)

    def _sweep(self) -> None:
        """Close what is too old, or more than stay idle; the longest idle first."""
        self._sweeper, self._sweep_at = None, math.inf
        now = self._loop.time()
        members, self._idle = self._idle, deque()
        for member in members:
            if member.expires_at <= now or not member.connection.usable:
                self._close_in_background(member)
            else:
                self._idle.append(member)
        while len(self._idle) > self._max_idle and self._idle[0].idle_since + _LINGER <= now:
            self._close_in_background(self._idle.popleft())
        if self._idle:
            self._sweep_by(min(member.expires_at for member in self._idle))
        if len(self._idle) > self._max_idle:
            self._sweep_by(self._idle[0].idle_since + _LINGER)

    def _close_in_background(self, member: _Member[C]) -> None:
        connection = member.connection
        if not connection.usable:
            connection.abort()
            self._open_more()
            return
        task = self._loop.create_task(_close(connection))
        self._closing.add(task)
        task.add_done_callback(functools.partial(self._closed_one, connection))

    def _closed_one(self, connection: C, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if task.cancelled():
            # By the end of the loop, perhaps before it began.
            connection.abort()
        else:
            self._open_more()

    def _open_more(self, pause: float = 0.0) -> None:
        """Open as many as those who wait can use, after a pause of so many seconds."""
        wanted = min(len(self._waiters), self._room()) - len(self._opening)
        for _ in range(wanted):
            task = self._loop.create_task(self._open(pause))
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _room(self) -> int:
        """How many may be being opened at once."""
        room = self._ceiling.room(self._taken, self._loop.time())
        return min(room, 1) if self._failure else room

    async def _open(self, pause: float) -> C | None:
        """None if nobody needs it any more."""
        if pause:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_closed.wait()
        return await self._connect() if self._waiters else None

    def _opened(self, task: asyncio.Task[C | None]) -> None:
        self._opening.discard(task)
        if task.cancelled():
            return  # by `close`, or the end of the loop
        pause = 0.0
        if error := task.exception():
            pause = self._failed(error)
        elif (connection := task.result()) is not None:
            self._succeeded(connection)
        self._open_more(pause)

    def _succeeded(self, connection: C) -> None:
        if self._is_closed.is_set():
            connection.abort()
            return
        self._failure, self._pause = None, 0.0
        lifetime = self._lifetime * random.uniform(1 - _JITTER, 1)  # noqa: S311
        self._place(_Member(connection, self._loop.time() + lifetime))
        self._ceiling.reached(self._established)

    def _failed(self, error: BaseException) -> float:
        """Tell whom it concerns; returns for how many seconds not to try again."""
        self._failure = error
        established = self._established
        if isinstance(error, self._full):
            self._ceiling.refused(established, self._loop.time())
            self._warn("full", f"{error}; going on with fewer than {self._ceiling.highest}")
        elif not established and self._tell_first(error):
            return 0.0
        else:
            # The text of an error that is not ours may hold anything.
            text = str(error) if isinstance(error, StorageError) else f"not connected: {type(error).__name__}"
            self._warn("failed", f"session store {self._store!r} has {established} connections; {text}")
        self._pause = min(_LAST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        return self._pause


async def _close(connection: Pooled) -> None:
    try:
        async with asyncio.timeout(_CLOSE_WITHIN):
            await connection.close()
    except Exception:  # noqa: BLE001  # whatever it is, nobody needs this connection any more
        connection.abort()


class _Ceiling:
    """How many connections may exist; lower than the highest while the server refuses more."""

    def __init__(self, highest: int) -> None:
        self.highest = self.now = highest
        self._refused_at = 0.0

    def room(self, taken: int, at: float) -> int:
        """For how many more there is room; for one, as a probe, if the last refusal is long ago."""
        if taken >= self.now and taken < self.highest and at - self._refused_at >= _PROBE_AFTER:
            return 1
        return max(0, self.now - taken)

    def refused(self, established: int, at: float) -> None:
        self.now = max(1, established)
        self._refused_at = at

    def reached(self, established: int) -> None:
        self.now = max(self.now, established)
