"""The session store: the operations, run by a driver."""

import asyncio
import base64
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hector.domain.errors import InvalidError, StorageError, StoreOpenError, StoreUnavailableError
from hector.domain.ids import SessionKey, check_storable
from hector.domain.memory import TailLimit
from hector.domain.messages import StoredMessage
from hector.domain.replicas import OpenTurn, ReplicaRow
from hector.domain.sessions import QueueState, Session, SessionPage
from hector.domain.turns import Accepted, Arrival, Begun, Lease, NewMessage, Outcome, Turn
from hector.storage import deletion, liveness, reading, running, turns
from hector.storage.locks import ReplicaLocks
from hector.storage.migrate import upgrade_sqlite
from hector.storage.operations import MakeOperation
from hector.storage.sqlite import (
    MemoryDriver,
    SqliteDriver,
    SqliteSettings,
    connect,
    time_argument,
    translated,
)

T = TypeVar("T")

_MAX_PAGE = 10_000
_MAX_CURSOR = 4096
"""Characters. Ids of full length in 4-byte characters take 2600."""


class Driver(Protocol):
    async def write(self, make: MakeOperation[T]) -> T: ...

    async def read(self, make: MakeOperation[T]) -> T: ...

    async def close(self) -> None: ...


class SqlSessionStore:
    """Implements `TurnStore`, `SessionDirectory` and `ReplicaStore` (domain)."""

    def __init__(self, driver: Driver, locks: ReplicaLocks | None = None) -> None:
        self._driver = driver
        self.locks = locks
        """Tell at once that a replica's process is gone; None where there is no such lock."""

    @property
    def shared(self) -> bool:
        """Other processes may use the same store."""
        return not isinstance(self._driver, MemoryDriver)

    async def accept(self, arrival: Arrival, limit: TailLimit) -> Accepted:
        return await self._driver.write(partial(turns.accept, arrival, limit))

    async def take(self, key: SessionKey, replica_id: str, limit: TailLimit) -> Begun | None:
        return await self._driver.write(partial(turns.take, key, replica_id, limit))

    async def append(self, lease: Lease, messages: Sequence[NewMessage]) -> Lease:
        return replace(lease, seq=await self._driver.write(partial(running.append, lease, messages)))

    async def end(self, lease: Lease, messages: Sequence[NewMessage], outcome: Outcome) -> Turn:
        return await self._driver.write(partial(running.end, lease, messages, outcome))

    async def withdraw(self, key: SessionKey, turn_id: str, message_id: str, reason: str) -> Turn | None:
        return await self._driver.write(partial(running.withdraw, key, turn_id, message_id, reason))

    async def cancel(self, key: SessionKey, turn_id: str) -> Turn | None:
        return await self._driver.write(partial(running.cancel, key, turn_id))

    async def turn(self, agent_id: str, user_id: str, turn_id: str) -> Turn | None:
        return await self._driver.read(partial(reading.read_turn, agent_id, user_id, turn_id))

    async def session(self, key: SessionKey) -> Session | None:
        return await self._driver.read(partial(reading.read_session, key))

    async def sessions(
        self, *, agent_id: str | None, user_id: str | None, limit: int, cursor: str | None = None
    ) -> SessionPage:
        _check_limit(limit)
        after = _decode_cursor(cursor) if cursor else None
        found = await self._driver.read(partial(reading.list_sessions, agent_id, user_id, limit + 1, after))
        page = found[:limit]
        return SessionPage(page, _encode_cursor(page[-1]) if len(found) > limit else None)

    async def messages(
        self, key: SessionKey, *, before: int | None = None, limit: int = 100
    ) -> Sequence[StoredMessage]:
        _check_limit(limit)
        return await self._driver.read(partial(reading.read_messages, key, before, limit))

    async def queue(self, key: SessionKey) -> QueueState:
        return await self._driver.read(partial(reading.queue_state, key))

    async def create(self, key: SessionKey) -> bool:
        return await self._driver.write(partial(deletion.create, key))

    async def delete(self, key: SessionKey) -> bool:
        return await self._driver.write(partial(deletion.delete, key))

    async def register(self, replica: ReplicaRow) -> None:
        # The lock first: a row without one would look dead.
        if self.locks:
            self.locks.sweep()
            self.locks.hold(replica.id)
        await self._driver.write(partial(liveness.register, replica))

    async def beat(self, replica_id: str) -> bool:
        alive = await self._driver.write(partial(liveness.beat, replica_id))
        if not alive and self.locks:
            self.locks.release(replica_id)  # an id is never used again
        return alive

    async def replicas(self) -> Sequence[ReplicaRow]:
        return await self._driver.read(liveness.list_replicas)

    async def declare_dead(self, replica: ReplicaRow) -> bool:
        declared = await self._driver.write(partial(liveness.declare_dead, replica))
        if declared and self.locks:
            self.locks.forget(replica.id)
        return declared

    async def retire(self, replica_id: str) -> None:
        await self._driver.write(partial(liveness.retire, replica_id))
        if self.locks:
            self.locks.release(replica_id)

    async def open_turns(self, replica_id: str) -> Sequence[OpenTurn]:
        return await self._driver.read(partial(liveness.open_turns, replica_id))

    async def orphans(self) -> Sequence[OpenTurn]:
        return await self._driver.read(liveness.orphans)

    async def end_orphan(self, orphan: OpenTurn, replica_id: str) -> bool:
        return await self._driver.write(partial(running.end_orphan, orphan.key, orphan.turn_id, replica_id))

    async def close(self) -> None:
        await self._driver.close()


async def open_sqlite(name: str, settings: SqliteSettings) -> SqlSessionStore:
    """Open a database file, which is made if missing, with its folder, and bring its schema up to date.

    Raises `StoreOpenError`.
    """
    # Connections are opened later too, when the working directory may be another; and two names of one file
    # must lead to the same locks.
    settings = replace(settings, path=settings.path.resolve())
    try:
        connection = await asyncio.to_thread(_prepare, settings)
    except (OSError, StorageError) as error:
        raise StoreOpenError(name, f"{settings.path}: {_why(error, settings.path)}") from error
    driver = SqliteDriver(settings, connection)
    driver.start()
    return SqlSessionStore(driver, ReplicaLocks(settings.path))


def open_memory() -> SqlSessionStore:
    """A store that lives and dies with this process. It belongs to the calling thread."""
    driver = MemoryDriver()
    upgrade_sqlite(driver.connection)
    return SqlSessionStore(driver)


def _prepare(settings: SqliteSettings) -> sqlite3.Connection:
    folder = settings.path.parent
    missing = [path for path in (settings.path, folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if settings.path.exists() and not os.access(settings.path, os.R_OK | os.W_OK):
        # SQLite opens what it may only read, and the first message is too late to find out.
        raise StorageError("the file is not writable for this user")
    with _sole_in(folder), translated():
        connection = connect(settings)
        try:
            upgrade_sqlite(connection)
        except BaseException:
            connection.close()
            raise
    for made in missing:
        _sync(made.parent)  # the entry that names it must be on the disk, too
    return connection


@contextmanager
def _sole_in(folder: Path) -> Iterator[None]:
    """One process at a time: of two that make a new file a WAL database at once, SQLite refuses one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Not every network file system has it, and it matters at the first start only.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: OSError | StorageError, path: Path) -> str:
    if isinstance(error, OSError):
        return f"its folder cannot be used: {error.strerror or error}"
    if path.is_dir():
        return "is a directory; name a file in it"
    if isinstance(error, StoreUnavailableError) and not os.access(path.parent, os.W_OK | os.X_OK):
        return "its folder is not writable for this user"
    return str(error)


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= _MAX_PAGE:
        raise InvalidError("limit", f"{limit} is not from 1 to {_MAX_PAGE}")


def _encode_cursor(session: Session) -> str:
    key = session.key
    place = [session.updated_at.isoformat(), key.agent_id, key.user_id, key.session_id]
    return base64.urlsafe_b64encode(json.dumps(place, ensure_ascii=False).encode()).decode()


def _decode_cursor(cursor: str) -> Mapping[str, Any]:
    """Of a cursor as a client sends it, which may be anything."""
    try:
        if len(cursor) > _MAX_CURSOR:
            raise ValueError("longer than any that a listing gives")
        time, *place = json.loads(base64.urlsafe_b64decode(cursor))
        if not all(isinstance(part, str) for part in place):
            raise ValueError("ids are texts")
        agent, user, session = (check_storable(part, "cursor") for part in place)
        moment = time_argument(datetime.fromisoformat(time))
    except (ValueError, TypeError, OverflowError, RecursionError, InvalidError):
        raise InvalidError("cursor", "is not one that a listing gave; leave it out to start again") from None
    return {"after_time": moment, "after_agent": agent, "after_user": user, "after_session": session}
