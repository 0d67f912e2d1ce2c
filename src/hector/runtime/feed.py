"""What a turn tells, kept in memory for whoever listens, however late they come."""

import asyncio
from collections.abc import AsyncGenerator

from hector.domain.errors import HectorError
from hector.domain.events import TurnEnded, TurnEvent
from hector.domain.turns import Turn


class TurnFeed:
    """The events of one run of a turn, from its first to its end.

    Each listener reads the one list at its own pace, so a slow one delays nobody and costs no copy.
    """

    def __init__(self) -> None:
        self._events: list[TurnEvent] = []
        self._error: HectorError | None = None
        self._changed: asyncio.Event | None = None
        """Made when somebody waits; most turns have one waiter, who waits for the end alone."""
        self._ended = asyncio.Event()
        self._turn: Turn | None = None

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def publish(self, event: TurnEvent) -> None:
        self._events.append(event)
        self._wake()

    def end(self, turn: Turn) -> None:
        """After the commit; nothing follows."""
        if self.ended:
            return
        self._turn = turn
        self._events.append(TurnEnded(turn))
        self._ended.set()
        self._wake()

    def fail(self, error: HectorError) -> None:
        """The outcome cannot be told; the same message is safe to repeat."""
        if self.ended:
            return
        self._error = error
        self._ended.set()
        self._wake()

    async def result(self) -> Turn:
        await self._ended.wait()
        if self._error:
            raise self._error
        assert self._turn, "a feed ends with a turn or an error"
        return self._turn

    async def events(self) -> AsyncGenerator[TurnEvent, None]:
        """All events from the first; ends after `TurnEnded`, or raises what `fail` was given."""
        position = 0
        while True:
            while position < len(self._events):
                yield self._events[position]
                position += 1
            if self._error:
                raise self._error
            if self.ended:
                return
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()

    def _wake(self) -> None:
        if self._changed:
            self._changed.set()
            self._changed = None
