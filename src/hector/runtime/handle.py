"""What a caller holds of a turn."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from hector.domain.events import Told
from hector.domain.ids import SessionKey
from hector.domain.turns import Turn
from hector.runtime.feed import TurnFeed


@dataclass(frozen=True, slots=True)
class TurnHandle:
    """A message that was taken, and the turn that answers it. Dropping the handle does not stop the turn."""

    key: SessionKey
    turn_id: str
    message_id: str
    feed: TurnFeed
    new_session: bool = False
    earlier_messages: int = 0
    """How many the session had before."""
    repeated: bool = False
    """The message was known: its turn runs, waits or has ended already."""
    waiting: bool = False
    """Other turns of the session came first when the message was taken."""

    def told(self) -> AsyncGenerator[Told, None]:
        """What the turn tells, from its first event; ends after `TurnEnded`."""
        return self.feed.told()

    async def result(self) -> Turn:
        """The turn at its end, durable.

        Raises `OutcomeUnknownError` or `StoreUnavailableError` if the end could not be stored or seen; the
        message is then safe to repeat under its id. Raises `NotPausedError` or `WaitedTooLongError` if it was
        to go on with a paused turn and did not reach it.
        """
        return await self.feed.result()
