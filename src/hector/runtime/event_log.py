"""Keeps what a running turn tells in the store, for streams that go on elsewhere."""

import asyncio
import logging
from collections.abc import Callable
from typing import assert_never

from hector.domain.errors import LeaseLostError, StorageError
from hector.domain.events import (
    EventStore,
    Summarizing,
    TextDelta,
    ThinkingDelta,
    Told,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnReset,
    TurnStarted,
    TurnWaiting,
)
from hector.domain.turns import Lease
from hector.engine.defects import describe_defect

logger = logging.getLogger(__name__)

_INTERVAL = 0.1
"""Seconds between batches; a turn that is shorter stores none."""
_BATCH = 1024
"""Characters that are stored at once, however young they are."""
_SETTLE = 2.0
"""Seconds for the last batch, which a turn's end waits for."""


class EventLog:
    """The events of one run, stored in batches behind its back.

    What cannot be stored now is stored with the next batch, so that no number is missing. When the run ends,
    what is left is stored before that, if anything was; else nobody needs it, for the reply itself is there.
    """

    def __init__(self, store: EventStore, lease: Callable[[], Lease], stored: Callable[[], None]) -> None:
        """`stored` is called after each batch."""
        self._store, self._lease, self._stored = store, lease, stored
        self._waiting: list[Told] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._began = False
        """A first batch was due."""
        self._settling = self._over = False

    def add(self, told: Told) -> None:
        if self._over:
            return
        self._waiting.append(told)
        self._size += _size(told)
        if self._began and self._size >= _BATCH:
            self._write_now()
        elif self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._write_now)

    async def settle(self) -> None:
        """Before the end of the run is stored."""
        if self._began and not self._over:
            self._settling = True
            self._write_now()
            if self._writing:
                await asyncio.wait((self._writing,), timeout=_SETTLE)
        await self.stop()

    async def stop(self) -> None:
        """Store no more."""
        self._over = True
        if self._timer:
            self._timer.cancel()
        if self._writing:
            self._writing.cancel()
            await asyncio.wait((self._writing,))

    def _write_now(self) -> None:
        self._began = True
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._writing is None and self._waiting:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """What waits now; before the end of the run, until nothing waits."""
        try:
            while self._waiting:
                if not await self._write_batch():
                    await asyncio.sleep(_INTERVAL)
                if not self._settling:
                    break
        except LeaseLostError:
            self._over = True  # who runs the turn finds out by itself
        except Exception as error:  # noqa: BLE001  # a stream that is broken off is not worth a turn
            logger.error("events could not be stored:\n%s", describe_defect(error))  # noqa: TRY400
            self._over = True
        finally:
            self._writing = None
            if self._waiting and not self._over:
                self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._write_now)

    async def _write_batch(self) -> bool:
        batch, size = list(self._waiting), self._size
        try:
            await self._store.add_events(self._lease(), batch)
        except LeaseLostError:
            raise
        except StorageError as error:
            logger.debug("what a turn told could not be stored now: %s", error)
            return False
        del self._waiting[: len(batch)]
        self._size -= size
        self._stored()
        return True


def _size(told: Told) -> int:
    match told.event:
        case TextDelta(text) | ThinkingDelta(text):
            return len(text)
        case ToolStarted(call):
            return len(call.arguments)
        case ToolFinished(result):
            return len(result.text)
        case TurnStarted() | Summarizing() | TurnWaiting() | TurnReset() | TurnEnded():
            return 0
        case _:
            assert_never(told.event)
