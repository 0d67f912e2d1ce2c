"""This process as a replica: it shows that it lives, and clears up after those that do not."""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Sequence

from hector.domain.errors import StorageError
from hector.domain.replicas import OpenTurn, ReplicaLocks, ReplicaRow, ReplicaStore
from hector.engine.defects import describe_defect
from hector.runtime.turns import TurnRunner
from hector.runtime.wakes import ORPHANS, Bell
from hector.runtime.watch import Look, Watch

logger = logging.getLogger(__name__)

_FIRST_BEAT = 1.0
"""Seconds, or a third of the ttl. It takes the lock where that is a server's, for which it needs a connection
of its own: a process that ends sooner makes none."""
_LOOK = 1.0
"""Seconds between looks at the other replicas and what they left, where there are others."""
_SIGN_OFF = 2.0
"""Seconds."""


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
        # More than from one beat to the next, and less than where one was left out.
        self._watch = Watch(ttl / 2, locks.stillness if locks else lambda ttl: ttl)
        self._look_at = math.inf
        """When, by the monotonic clock, somebody is to be found dead who has not beaten by then."""
        self._unknown: set[OpenTurn] = set()
        """What was ours after the last beat, and unknown here."""
        self._beating = asyncio.Lock()
        """One beat at a time: two that find the row gone would both register."""
        self._beaten = False
        """Since our own turns were looked at."""
        self._bell: Bell | None = None
        """Of the looks."""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Register, and clear up at once: after a crash on one machine nobody waits for a time-out."""
        await self._register()
        await self._clear_up()
        # Who is alone does not look.
        self._runner.wakes.tell(ORPHANS)
        self._tasks = [asyncio.create_task(self._beat_on()), asyncio.create_task(self._look_on())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            async with asyncio.timeout(_SIGN_OFF):
                await self._store.retire(self._runner.replica_id)
            self._runner.wakes.tell(ORPHANS)
        except (StorageError, TimeoutError) as error:
            # Others will notice that its counter stands still.
            logger.warning("could not sign off from the session store: %s", str(error) or "no answer")

    async def _register(self) -> None:
        # A new id each time: what was done under the old one is not to be taken for ours.
        replica_id = str(uuid.uuid4())
        await self._store.register(ReplicaRow(replica_id, self._label, self._ttl, 0))
        self._runner.replica_id = replica_id

    async def _beat_on(self) -> None:
        """Apart from the looks: whoever has much to look at, or waits for a connection, is no less alive."""
        beat_at = time.monotonic() + min(self._ttl / 3, _FIRST_BEAT)
        while True:
            await asyncio.sleep(beat_at - time.monotonic())
            # From when it was due: others count on the time between two beats, whatever one takes.
            beat_at = time.monotonic() + self._ttl / 3
            try:
                await self._beat()
                self.failure = None
            except StorageError as error:
                # Soon again: who lost its lock together with the store is taken for dead without a next beat.
                beat_at = min(beat_at, time.monotonic() + self._ttl / 12)
                # Leases stay ours until others, who see the store, have watched us stand still.
                if str(error) != str(self.failure):
                    logger.warning("no heartbeat: %s", error)
                self.failure = error
            except Exception as error:  # noqa: BLE001  # without its heart this replica would lose every turn
                _tell("a heartbeat met a defect", error)

    async def _beat(self) -> None:
        async with self._beating:
            if not await self._store.beat(self._runner.replica_id):
                logger.warning(
                    "others took this replica for dead; its turns are theirs now, and it starts anew"
                )
                lost = self._runner.running()
                await self._register()
                for turn_id in lost:
                    self._runner.drop(turn_id)
        self._beaten = True
        if self._bell:
            self._bell.ring()

    async def _look_on(self) -> None:
        """After each beat, when others have news, and as often as the others must be looked at."""
        with self._runner.wakes.bell(ORPHANS) as bell:
            self._bell = bell
            while True:
                await bell.wait(max(0.0, self._look_at - time.monotonic()))
                bell.clear()
                try:
                    await self._look()
                except StorageError as error:
                    self._look_at = time.monotonic() + self._ttl / 12
                    logger.debug("nobody knows what others left: %s", error)
                except Exception as error:  # noqa: BLE001  # without it nobody clears up after the dead
                    _tell("a look at other replicas met a defect", error)

    async def _look(self) -> None:
        await self._check_own_turns()
        await self._clear_up()

    async def _check_own_turns(self) -> None:
        """Compare what we do with what the store says we do."""
        running, beaten = self._runner.running(), self._beaten
        self._beaten = False
        stored = await self._store.open_turns(self._runner.replica_id)
        gone = running.difference(turn.turn_id for turn in stored)
        for turn_id in gone & self._runner.running():
            self._runner.drop(turn_id)
        if beaten:
            self._adopt_leaked(stored)

    def _adopt_leaked(self, stored: Sequence[OpenTurn]) -> None:
        """What is ours by two beats and unknown here came of a commit without an answer: nobody runs it."""
        unknown = {turn for turn in stored if not self._runner.knows(turn)}
        leaked, self._unknown = unknown & self._unknown, unknown
        for turn in leaked:
            logger.warning("turn %s was begun here and is run by nobody", turn.turn_id)
            self._runner.take_over(turn, turn.turn_id)

    async def _clear_up(self) -> None:
        for row in await self._judge():
            if await self._store.declare_dead(row):
                logger.warning(
                    "replica %s (%s) is dead; its turns are ended or taken over", row.id, row.label
                )
        orphans = await self._store.orphans()
        if not self._runner.running().isdisjoint(orphan.turn_id for orphan in orphans):
            # Our row is gone. What is begun under the id of a dead replica is an orphan at once.
            await self._beat()
        for orphan in orphans:
            if self._adopts or self._runner.cares_for(orphan.key):
                self._runner.take_over(orphan)

    async def _judge(self) -> Sequence[ReplicaRow]:
        """The dead."""
        self._look_at = math.inf
        asked = time.monotonic()
        others = [row for row in await self._store.replicas() if row.id != self._runner.replica_id]
        freed = await self._locks.freed(others) if self._locks else ()
        verdict = self._watch.judge(Look(asked, time.monotonic(), others, freed))
        self._runner.wakes.others = bool(others)
        # What others leave is found by looking, unless they can tell.
        next_look = asked + _LOOK if others else math.inf
        self._look_at = min(verdict.again, next_look)
        return verdict.dead


def _tell(what: str, error: Exception) -> None:
    """Without the error's own text, which may quote what was said."""
    logger.error("%s:\n%s", what, describe_defect(error))
