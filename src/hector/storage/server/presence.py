"""A lock of the connection that beats: the server frees it as soon as that connection ends."""

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from hector.domain.errors import StorageError
from hector.domain.replicas import ReplicaRow
from hector.storage import liveness
from hector.storage.operations import Operation
from hector.storage.server.dedicated import Dedicated
from hector.storage.server.driver import Connection, ServerDriver, transact

logger = logging.getLogger(__name__)

_PATIENCE = 1.0
"""Seconds for the connection of a replica whose ttl is not known yet."""
_SLACK = 0.5
"""Seconds. To connect anew, with TLS, and to commit takes a while, however short the ttl is."""


class ServerLocks(Protocol):
    """Such locks of one kind of server.

    A lock's name tells the server on which it was taken; another, or the same when it was started again,
    cannot tell whether it is held. A name is never used twice.
    """

    def take(self) -> Operation[str | None]:
        """Take a lock that lasts as long as the connection; its name, or None where there are none."""
        ...

    def look(self, names: Sequence[str]) -> Operation[Mapping[str, bool]]:
        """Whether each is held; without those of which this server cannot tell."""
        ...


class Presence:
    """Beats on a connection that holds a lock, and sees whose is free. Implements `domain.ReplicaLocks`."""

    def __init__(
        self, store: str, dedicated: Dedicated[Any], locks: ServerLocks, driver: ServerDriver
    ) -> None:
        self._store = store
        self.connection = dedicated
        self._locks = locks
        self._driver = driver
        self._lock: str | None = None
        """The name of the one that the connection holds."""
        self._patience = _PATIENCE
        dedicated.attach(self._take, self._forget)

    def expect(self, ttl: float) -> None:
        """To beat for a replica of this ttl."""
        # What is left of the time between two beats is enough for a beat through the pool.
        self._patience = ttl / 6

    async def beat(self, replica_id: str) -> bool | None:
        """As `ReplicaStore.beat`; None if that is to be done through the pool, and no lock is held."""
        return await self.connection.run(partial(self._beat_on, replica_id), self._patience)

    async def freed(self, replicas: Sequence[ReplicaRow]) -> Collection[str]:
        ids = {replica.lock: replica.id for replica in replicas if replica.lock}
        if not ids:
            return ()
        held = await self._driver.read(partial(self._locks.look, [*ids]))
        return {ids[name] for name, is_held in held.items() if not is_held}

    def stillness(self, ttl: float) -> float:
        """One beat, and half of another.

        Who lives and lost its connection has a new lock with its next beat: at the latest a third of the ttl
        after the last one, and if that fails another tenth later (`runtime.replica`).
        """
        return ttl / 3 + max(ttl / 6, _SLACK)

    async def close(self) -> None:
        await self.connection.close()

    async def _beat_on(self, replica_id: str, connection: Connection) -> bool:
        lock = self._lock
        alive, held = await transact(connection, "write", self._beat(replica_id, lock))
        if lock and not held:
            # Something between us and the server gave us another of its sessions.
            self.connection.lose(connection)
        return alive

    def _beat(self, replica_id: str, lock: str | None) -> Operation[tuple[bool, bool]]:
        held = False
        if lock:
            held = (yield from self._locks.look([lock])).get(lock, False)
        return (yield from liveness.beat(replica_id, lock if held else None)), held

    async def _take(self, connection: Connection) -> None:
        try:
            self._lock = await transact(connection, "write", self._locks.take())
        except StorageError as error:
            # Not every server that speaks its language has them. The beat needs none.
            logger.info("session store %r: no lock for the connection that beats: %s", self._store, error)

    def _forget(self) -> None:
        self._lock = None
