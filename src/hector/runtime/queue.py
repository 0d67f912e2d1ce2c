"""The turns of one session that nobody has begun: those that wait here, and those that others left."""

import asyncio
import logging
from typing import Protocol

from hector.domain.errors import StorageError
from hector.domain.ids import SessionKey
from hector.engine.defects import describe_defect
from hector.runtime.wakes import Bell, Wakes, session_topic

logger = logging.getLogger(__name__)

POLL_FIRST, POLL_LAST = 0.005, 0.25
"""Seconds between looks at what other processes do; doubled from the first to the last."""
POLL_SIGNALED = 2.0
"""... where they tell when a session is free."""


class QueueOwner(Protocol):
    """What runs the turns."""

    closing: bool

    def waits_here(self, key: SessionKey) -> bool:
        """Somebody in this process waits for a turn of the session to begin."""
        ...

    async def take(self, key: SessionKey, leaked: str | None) -> asyncio.Task[None] | None:
        """Begin the next turn of the session, if one can begin and is ours; the task that runs it."""
        ...

    async def look(self, key: SessionKey) -> None:
        """Tell those who wait in vain."""
        ...


class SessionQueue:
    """The loop that begins the turns of one session, as long as some wait here."""

    def __init__(self, key: SessionKey, owner: QueueOwner, wakes: Wakes) -> None:
        self.key = key
        self.task: asyncio.Task[None]
        self._owner = owner
        self._wakes = wakes
        self._bell: Bell | None = None
        self._adopts = False
        self._leaked: str | None = None

    def wake(self) -> None:
        if self._bell:
            self._bell.ring()

    def adopt(self, leaked: str | None = None) -> None:
        """Look once, though nobody waits here; `leaked` is a turn of this replica that nobody runs."""
        self._adopts = True
        self._leaked = leaked or self._leaked
        self.wake()

    async def serve(self) -> None:
        with self._wakes.bell(session_topic(self.key)) as self._bell:
            await self._serve(self._bell)

    async def _serve(self, bell: Bell) -> None:
        pause = POLL_FIRST
        while not self._owner.closing and (self._adopts or self._owner.waits_here(self.key)):
            bell.clear()
            try:
                running = await self._owner.take(self.key, self._leaked)
                self._leaked = None
                if running:
                    await asyncio.wait((running,))
                    pause = POLL_FIRST
                    continue
                self._adopts = False
                await self._owner.look(self.key)
            except StorageError as error:
                logger.warning("the queue of a session of agent %s: %s", self.key.agent_id, error)
            except Exception as error:  # noqa: BLE001  # others wait in this queue
                logger.error("a queue met a defect:\n%s", describe_defect(error))  # noqa: TRY400
            longest = POLL_SIGNALED if self._wakes.prompt else POLL_LAST
            pause = POLL_FIRST if await bell.wait(pause) else min(pause * 2, longest)
