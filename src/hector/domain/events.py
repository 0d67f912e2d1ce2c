"""What a running turn tells those who listen."""

from dataclasses import dataclass
from typing import TypeAlias

from hector.domain.messages import ToolCall, ToolResult
from hector.domain.turns import Turn


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


TurnEvent: TypeAlias = (
    TurnWaiting | TurnStarted | TextDelta | ThinkingDelta | ToolStarted | ToolFinished | TurnEnded
)
