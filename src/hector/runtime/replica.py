"""This process as a replica: it shows that it lives, and clears up after those that do not."""

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from hector.domain.errors import StorageError
from hector.domain.replicas import OpenTurn, ReplicaLocks, ReplicaRow, ReplicaStore
from hector.engine.defects import describe_defect
from hector.runtime.turns import TurnRunner

logger = logging.getLogger(__name__)

_SIGN_OFF = 2.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class _Seen:
    counter: int
    since: float
    """By the monotonic clock of this process."""


class Replica:
    """Beats for one store, judges the others, and ends or adopts what the dead left."""

    def __init__(
        self,
        store: ReplicaStore,
        runner: TurnRunner,
        locks: ReplicaLocks | None,
        *,
        label: str,
        ttl: float,
        adopts: bool = True,
    ) -> None:
        self._store, self._runner, self._locks = store, runner, locks
        self._label, self._ttl = label, ttl
        self._adopts = adopts
        self.failure: StorageError | None = None
        """Why the last heartbeat could not be written; None if it was."""
        self._seen: dict[str, _Seen] = {}
        self._unknown: set[OpenTurn] = set()
        """What the last beat found to be ours, and unknown here."""
        self._last_beat = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register, and clear up at once: after a crash on one machine nobody waits for a time-out."""
        await self._register()
        await self._clear_up()
        self._task = asyncio.create_task(self._beat_on())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait((self._task,))
        try:
            async with asyncio.timeout(_SIGN_OFF):
                await self._store.retire(self._runner.replica_id)
        except (StorageError, TimeoutError) as error:
            # Others will notice that its counter stands still.
            logger.warning("could not sign off from the session store: %s", str(error) or "no answer")

    async def _register(self) -> None:
        # A new id each time: what was done under the old one is not to be taken for ours.
        replica_id = str(uuid.uuid4())
        await self._store.register(ReplicaRow(replica_id, self._label, self._ttl, 0))
        self._runner.replica_id = replica_id

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(self._ttl / 3)
            try:
                await self._beat()
                self.failure = None
            except StorageError as error:
                self.failure = error
                # Leases stay ours until others, who see the store, have watched us stand still.
                logger.warning("no heartbeat: %s", error)
            except Exception as error:  # noqa: BLE001  # without its heart this replica would lose every turn
                _tell("a heartbeat met a defect", error)

    async def _beat(self) -> None:
        if not await self._store.beat(self._runner.replica_id):
            logger.warning("others took this replica for dead; its turns are theirs now, and it starts anew")
            lost = self._runner.running()
            await self._register()
            for turn_id in lost:
                self._runner.drop(turn_id)
        now = time.monotonic()
        if now - self._last_beat > self._ttl:
            # We stood still ourselves, or the store did: what we saw before proves nothing.
            self._seen.clear()
        self._last_beat = now
        await self._check_own_turns()
        await self._clear_up()

    async def _check_own_turns(self) -> None:
        """Compare what we do with what the store says we do."""
        running = self._runner.running()
        stored = await self._store.open_turns(self._runner.replica_id)
        gone = running.difference(turn.turn_id for turn in stored)
        for turn_id in gone & self._runner.running():
            self._runner.drop(turn_id)
        await self._end_leaked(stored)

    async def _end_leaked(self, stored: Sequence[OpenTurn]) -> None:
        """What is ours by two beats and unknown here came of a commit without an answer: nobody runs it."""
        known = self._runner.known()
        unknown = {turn for turn in stored if turn.turn_id not in known}
        leaked, self._unknown = unknown & self._unknown, unknown
        for turn in leaked:
            logger.warning("turn %s was begun here and is run by nobody; it is ended", turn.turn_id)
            await self._clear(turn)

    async def _clear_up(self) -> None:
        for row in await self._judge(await self._store.replicas()):
            if await self._store.declare_dead(row):
                logger.warning(
                    "replica %s (%s) is dead; its turns are ended or taken over", row.id, row.label
                )
        for orphan in await self._store.orphans():
            await self._clear(orphan)

    async def _clear(self, orphan: OpenTurn) -> None:
        try:
            if orphan.working:
                await self._store.end_orphan(orphan, self._runner.replica_id)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001  # one that cannot be ended is not all of them
            _tell(f"turn {orphan.turn_id} cannot be ended", error)
            return
        if self._adopts:
            self._runner.adopt(orphan.key)

    async def _judge(self, rows: Sequence[ReplicaRow]) -> list[ReplicaRow]:
        """The dead: their lock is free, or their counter stood still for their ttl while we watched."""
        others = [row for row in rows if row.id != self._runner.replica_id]
        now = time.monotonic()
        before, self._seen = self._seen, {}
        dead = []
        for row in others:
            seen = before.get(row.id)
            if seen is None or seen.counter != row.counter:
                seen = _Seen(row.counter, now)
            self._seen[row.id] = seen
            if now - seen.since >= row.ttl or (self._locks and self._locks.is_free(row.id)):
                dead.append(row)
        return dead


def _tell(what: str, error: Exception) -> None:
    """Without the error's own text, which may quote what was said."""
    logger.error("%s:\n%s", what, describe_defect(error))
