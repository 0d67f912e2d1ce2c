"""What a running turn tells those who listen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from hector.domain.messages import ToolCall, ToolResult
from hector.domain.turns import Lease, Turn, TurnState


@dataclass(frozen=True, slots=True)
class TurnWaiting:
    """Its session is busy; it is stored and will run."""

    turn_id: str
    ahead: int
    """How many turns come first."""


@dataclass(frozen=True, slots=True)
class TurnStarted:
    turn_id: str


@dataclass(frozen=True, slots=True)
class Summarizing:
    """The conversation has outgrown its budget: it is summarised before the model is asked."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Provisional until the turn ends: the text is stored then."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolFinished:
    result: ToolResult


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The last event. Made after the commit: what it says is durable."""

    turn: Turn
    """With its messages."""


@dataclass(frozen=True, slots=True)
class TurnReset:
    """The turn is run again: what was told of the attempt before does not count."""

    attempt: int


RunEvent: TypeAlias = TurnStarted | Summarizing | TextDelta | ThinkingDelta | ToolStarted | ToolFinished
"""What one run of a turn tells; each has a number in it."""
TurnEvent: TypeAlias = TurnWaiting | TurnReset | RunEvent | TurnEnded


class EventId(NamedTuple):
    """A place in what a turn tells; a later one is greater."""

    attempt: int
    number: int
    """From 1 in each attempt, without gaps; 0 is its reset."""

    def __str__(self) -> str:
        return f"{self.attempt}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> "EventId | None":
        """None for what `str` of no id gives."""
        attempt, dot, number = text.partition(".")
        if not (dot and attempt.isascii() and attempt.isdigit() and number.isascii() and number.isdigit()):
            return None
        if len(text) > _LONGEST_ID:
            return None
        return cls(int(attempt), int(number))


_LONGEST_ID = 40


class Told(NamedTuple):
    event: TurnEvent
    id: EventId | None = None
    """None for what is no part of a run."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the store knows of a turn, for those who listen on another replica than the one that runs it."""

    state: TurnState
    attempt: int
    events: Sequence[Told]
    """Of that attempt, those after the place that was asked for, as far as they are stored."""
    turn: Turn | None
    """With its messages; None while it runs."""


class EventStore(Protocol):
    """What running turns have told, kept for streams that are broken off. The end is not among it."""

    async def add_events(self, lease: Lease, events: Sequence[Told]) -> None:
        """Keep the events of a run, which follow those that were kept before. Raises `LeaseLostError`.

        Run again, with or without more at the end, it keeps each once.
        """
        ...

    async def progress(
        self, agent_id: str, user_id: str, turn_id: str, after: EventId, message_id: str = ""
    ) -> Progress | None:
        """None if there is no such turn (any longer).

        For whoever wants the answer to one message alone the turn is told as the run of that message left it,
        though others may have gone on with it since.
        """
        ...

    async def forget_events(self, agent_id: str, retention: float) -> int:
        """Delete those of turns that ended so many seconds ago, or are gone; how many batches that were."""
        ...
