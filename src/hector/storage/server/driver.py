"""Runs the operations on a database server: transactions, and what to do when one of them is broken off."""

import asyncio
import logging
import random
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeVar

from hector.domain.errors import (
    LeaseLostError,
    OutcomeUnknownError,
    StorageError,
    StoreOpenError,
    StoreUnavailableError,
)
from hector.storage.operations import MakeOperation, Operation, Result, Step
from hector.storage.server.pool import Pool, Pooled

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_COLLISIONS = 20
"""Of one operation. Each means that another one got through."""
_MOST_LOSSES = 3
"""Connections that one operation may lose before it gives up, where giving up tells no lie."""
_RESOLVE_WITHIN = 10.0
"""Seconds in which the outcome of a commit without an answer is looked for."""
_LAST_WRITES = 2.0
"""Seconds for what was broken off, when the store is closed."""
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0
_LONGEST_STEP_ASIDE = 0.02
"""Seconds: of two that collided, one is to be the first the next time."""


GRACE = 5.0
"""Seconds beyond `statement_timeout`, which the server keeps, after which it is taken for gone."""


class ConnectionLostError(Exception):
    """The connection is gone, with the transaction that was open on it."""


class CommitLostError(ConnectionLostError):
    """... while it committed: that may have been done or not."""


class CollisionError(Exception):
    """The transaction met another and cannot go on; run again it can, for it will see what the other did."""


class Connection(Pooled, Protocol):
    """One connection to a server, used by one operation at a time.

    Every method may raise `ConnectionLostError`. `run` and `commit` may raise `CollisionError` and
    `StorageError`, after which `roll_back` is due.
    """

    autocommits: bool
    """Outside of `begin` and `commit`, each statement is a transaction of its own."""
    in_transaction: bool
    """`begin` was called, and neither `commit` nor `roll_back` has been answered."""

    async def begin(self, kind: Literal["write", "read"]) -> None:
        """`read`: all statements see the database as it is at the first, and may not write."""
        ...

    async def run(self, steps: Sequence[Step]) -> Sequence[Result]: ...

    async def commit(self) -> None: ...

    async def roll_back(self) -> None: ...


C = TypeVar("C", bound=Connection)


class ServerDriver:
    """Runs each operation in a transaction of its own: READ COMMITTED, or one snapshot for those that read.

    A write is brought to its end also if its caller is cancelled meanwhile.
    """

    shared = True

    def __init__(self, store: str, pool: Pool[C], *, fuses: bool, lock_timeout: float) -> None:
        self._store = store
        self._lock_timeout = lock_timeout
        self._gates: dict[Hashable, _Gate] = {}
        self.pool: Pool[Any] = pool
        self._fuses = fuses
        """The statements of `fused` are understood."""
        self._outage = _Outage(store)
        self._finishing: set[asyncio.Task[Any]] = set()

    async def write(
        self,
        make: MakeOperation[T],
        at_once: MakeOperation[T | None] | None = None,
        *,
        group: Hashable = None,
    ) -> T:
        """`at_once` is tried first where statements fuse; if it returns None, or fails, `make` is run.

        An operation whose commit got no answer is run again; it must find out that it succeeded.
        """
        try:
            return await self._write_in_turn(make, at_once if self._fuses else None, group)
        except asyncio.CancelledError:
            self._finish(make, group)
            raise

    async def read(self, make: MakeOperation[T]) -> T:
        return await self._read(make)

    async def close(self) -> None:
        """Ends when all that was broken off is done; what still runs may end, and no more."""
        if self._finishing:
            _, late = await asyncio.wait(self._finishing, timeout=_LAST_WRITES)
            for task in late:
                task.cancel()
        await self.pool.close()

    def time_argument(self, moment: datetime) -> datetime:
        """As the columns hold it: UTC without saying so."""
        return moment.astimezone(UTC).replace(tzinfo=None)

    async def _write_in_turn(
        self, make: MakeOperation[T], at_once: MakeOperation[T | None] | None, group: Hashable
    ) -> T:
        """Of a group one at a time: the others would wait for its lock with a connection each."""
        if group is None:
            return await self._write(make, at_once)
        gate = self._gates.get(group)
        if gate is None:
            gate = self._gates[group] = _Gate()
        gate.users += 1
        try:
            await self._pass(gate)
            try:
                return await self._write(make, at_once)
            finally:
                gate.lock.release()
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[group]

    async def _pass(self, gate: "_Gate") -> None:
        if gate.users == 1:
            await gate.lock.acquire()
            return
        try:
            async with asyncio.timeout(self._lock_timeout):
                await gate.lock.acquire()
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"session store {self._store!r}: another transaction held a session for too long; try again"
            ) from error

    def _finish(self, make: MakeOperation[Any], group: Hashable) -> None:
        """Bring to its end what was broken off in the middle: it may be done, or half done and undone by now.

        A task for each operation from the start would do the same, and cost a fifth of a turn.
        """
        task = asyncio.ensure_future(self._write_in_turn(make, None, group))
        self._finishing.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._finishing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # Its caller, who would be told, has left.
            logger.info("session store %r: what was broken off failed: %s", self._store, type(error).__name__)

    async def _write(self, make: MakeOperation[T], at_once: MakeOperation[T | None] | None) -> T:
        retry = _Retry(self._store)
        if at_once:
            value = await self._at_once(at_once, retry)
            if value is not None:
                return value
        while True:
            connection = await self._connection(retry)
            try:
                return await transact(connection, "write", make())
            except CollisionError as collision:
                retry.collided(collision)
            except ConnectionLostError as lost:
                self.pool.forget_idle()
                retry.lost(lost)
            except StorageError as error:
                judged = retry.judged(error)
                if judged is error:
                    raise
                raise judged from error
            finally:
                self.pool.release(connection)
            await retry.pause()

    async def _at_once(self, make: MakeOperation[T | None], retry: "_Retry") -> T | None:
        connection = await self._connection(retry)
        # The first statement commits itself. What follows it is not to hide that.
        committed = False

        def noted() -> "Operation[T | None]":  # in quotes, or it is built for each call
            nonlocal committed
            operation = make()
            try:
                steps = next(operation)
                while True:
                    results = yield steps
                    committed = connection.autocommits
                    steps = operation.send(results)
            except StopIteration as stop:
                value: T | None = stop.value
                return value

        try:
            if connection.autocommits:
                return await _drive(connection, noted())
            return await transact(connection, "write", noted())
        except CollisionError:
            return None
        except ConnectionLostError as lost:
            self.pool.forget_idle()
            # Whatever it was, what it committed is found by the operation that follows.
            if connection.autocommits or isinstance(lost, CommitLostError):
                retry.doubt = lost
            return None
        except StorageError as error:
            if not committed:
                raise
            retry.doubt = error
            return None
        except BaseException:
            connection.abort()
            raise
        finally:
            self.pool.release(connection)

    async def _read(self, make: MakeOperation[T]) -> T:
        retry = _Retry(self._store)
        while True:
            connection = await self._connection(retry)
            try:
                return await transact(connection, "read", make())
            except CollisionError as collision:
                retry.collided(collision)
            except ConnectionLostError as lost:
                self.pool.forget_idle()
                retry.lost(ConnectionLostError(str(lost)))
            finally:
                self.pool.release(connection)
            await retry.pause()

    async def _connection(self, retry: "_Retry") -> Connection:
        while True:
            try:
                connection: Connection = await self.pool.acquire()
            except StorageError as error:
                await retry.unreachable(self._outage.told(error))
            else:
                self._outage.over()
                return connection


async def transact(connection: Connection, kind: Literal["write", "read"], operation: Operation[T]) -> T:
    """Raises `ConnectionLostError`, `CollisionError` and `StorageError`."""
    try:
        await connection.begin(kind)
        value = await _drive(connection, operation)
        return await _committed(connection, value)
    except ConnectionLostError:
        raise
    except Exception:
        await connection.roll_back()
        raise
    finally:
        # Cancelled in the middle of a statement, nobody knows what the connection would answer next.
        if connection.usable and connection.in_transaction:
            connection.abort()


async def _committed(connection: Connection, value: T) -> T:
    try:
        await connection.commit()
    except ConnectionLostError as lost:
        raise CommitLostError(str(lost)) from lost
    return value


async def _drive(connection: Connection, operation: Operation[T]) -> T:
    try:
        steps = next(operation)
        while True:
            steps = operation.send(await connection.run(steps))
    except StopIteration as stop:
        value: T = stop.value
        return value


class _Gate:
    """Where operations of a group wait for one another."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class _Retry:
    """What one operation has been through, and whether it may try again."""

    def __init__(self, store: str) -> None:
        self._store = store
        self.doubt: Exception | None = None
        """Why an earlier run may have been committed; None if none was."""
        self._collisions = self._losses = 0
        self._deadline: float | None = None
        self._pause = 0.0

    def collided(self, collision: CollisionError) -> None:
        self._collisions += 1
        if self._collisions >= _MOST_COLLISIONS:
            text = f"other transactions came first {self._collisions} times; try again"
            error = StoreUnavailableError(f"session store {self._store!r}: {text}")
            raise self.judged(error) from collision
        self._pause = random.uniform(0, _LONGEST_STEP_ASIDE) if self._collisions > 1 else 0.0  # noqa: S311

    def lost(self, lost: ConnectionLostError) -> None:
        if isinstance(lost, CommitLostError):
            self.doubt = lost
        self._losses += 1
        if self._losses >= _MOST_LOSSES and (self.doubt is None or self._late()):
            text = f"session store {self._store!r}: the connection was lost {self._losses} times; try again"
            raise self.judged(StoreUnavailableError(text)) from lost
        self._pause = 0.0 if self._losses == 1 else _FIRST_PAUSE

    async def unreachable(self, error: StorageError) -> None:
        """Raise, or return when another connection may be tried."""
        if self.doubt is None or self._late():
            raise self.judged(error) from error.__cause__ or error
        self._pause = min(_LAST_PAUSE, max(_FIRST_PAUSE, self._pause * 2))
        await asyncio.sleep(self._pause)

    def judged(self, error: StorageError) -> StorageError:
        """The error as it must be told after what was before."""
        if self.doubt is None or isinstance(error, LeaseLostError):
            return error
        return OutcomeUnknownError(
            f"session store {self._store!r} did not confirm a commit, so its outcome is not known;"
            " the same request is safe to repeat"
        )

    async def pause(self) -> None:
        if self._pause:
            await asyncio.sleep(self._pause)

    def _late(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + _RESOLVE_WITHIN
        return now >= self._deadline


class _Outage:
    """Logs why a store cannot be reached when that changes, and not for each request."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._why: str | None = None

    def told(self, error: StorageError) -> StorageError:
        """As callers may see it: hosts and users are the operator's business."""
        if not isinstance(error, StoreOpenError):
            return error
        if str(error) != self._why:
            self._why = str(error)
            logger.warning("%s", error)
        ours = StoreUnavailableError(f"session store {self._store!r} cannot be reached now; try again")
        ours.__cause__ = error
        return ours

    def over(self) -> None:
        if self._why is not None:
            self._why = None
            logger.warning("session store %r is reached again", self._store)
