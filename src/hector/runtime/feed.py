"""What a turn tells, kept in memory for whoever listens, however late they come."""

import asyncio
from collections.abc import AsyncGenerator

from hector.domain.errors import HectorError
from hector.domain.events import EventId, RunEvent, Told, TurnEnded, TurnReset, TurnWaiting
from hector.domain.turns import Turn


class TurnFeed:
    """What a turn tells from its first event, or from where this process began to listen, to its end.

    Each listener reads the one list at its own pace, so a slow one delays nobody and costs no copy.
    """

    def __init__(self) -> None:
        self._told: list[Told] = []
        self.place = EventId(1, 0)
        """Of the last event of a run."""
        self._error: HectorError | None = None
        self._changed: asyncio.Event | None = None
        """Made when somebody waits; most turns have one waiter, who waits for the end alone."""
        self._ended = asyncio.Event()
        self._turn: Turn | None = None

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def failed(self) -> bool:
        """Its end is an error, and the turn itself may have gone on."""
        return self._error is not None

    def waits(self, event: TurnWaiting) -> None:
        self._add(Told(event))

    def begin(self, attempt: int) -> None:
        """What follows belongs to this attempt. Whoever was told of one before is told to forget it."""
        if attempt == self.place.attempt:
            return
        before, self.place = self.place, EventId(attempt, 0)
        if before.number:
            self._add(Told(TurnReset(attempt), self.place))

    def publish(self, event: RunEvent) -> Told:
        """The next event of the run that has begun, with its number."""
        told = Told(event, self.place._replace(number=self.place.number + 1))
        self.relay(told)
        return told

    def relay(self, told: Told) -> None:
        """What another process told of the attempt that has begun; what is known already is left out."""
        if told.id is not None and told.id > self.place:
            self.place = told.id
            self._add(told)

    def end(self, turn: Turn) -> None:
        """After the commit; nothing follows."""
        if self.ended:
            return
        self._turn = turn
        self._ended.set()
        self._add(Told(TurnEnded(turn)))

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

    async def told(self) -> AsyncGenerator[Told, None]:
        """All from the first; ends after `TurnEnded`, or raises what `fail` was given."""
        position = 0
        while True:
            while position < len(self._told):
                yield self._told[position]
                position += 1
            if self._error:
                raise self._error
            if self.ended:
                return
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()

    def _add(self, told: Told) -> None:
        self._told.append(told)
        self._wake()

    def _wake(self) -> None:
        if self._changed:
            self._changed.set()
            self._changed = None
