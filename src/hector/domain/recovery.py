"""What becomes of a turn whose replica died, or handed it over; pure.

The table of its cases is tests/unit/domain/test_recovery.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hector.domain.messages import Message, ModelMessage, ToolCall, ToolMessage
from hector.domain.turns import Outcome, Reason, Recovery, TurnState

_SHOWN_ARGUMENTS = 200
"""Characters of a call's arguments in an error."""


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """A turn that nobody runs any more."""

    own: Sequence[Message]
    """Its messages, oldest first."""
    attempts: int
    """How often it was run, runs that a pause ended not counted."""
    handed_over: bool = False
    """Its replica stopped cleanly, and left it to others."""


def give_up(turn: BrokenOff, recovery: Recovery) -> Outcome | None:
    """How it ends; None if it is to be run again from its last stored step."""
    if recovery.on_crash == "fail":
        return _failed(turn)
    if lost := [call for call in unrecorded(turn.own) if not call.idempotent]:
        error = (
            f"the server stopped while it ran {', '.join(map(_shown, lost))}, which may have had its effect;"
            " look before you ask again under a new message id"
        )
        return Outcome(TurnState.FAILED, Reason.TOOL_UNKNOWN, error)
    if turn.attempts >= recovery.max_attempts and not turn.handed_over:
        error = (
            f"the server stopped in each of {turn.attempts} attempts to answer, as many as turns.max_attempts"
            " allows"
        )
        return _without_effects(turn.own, error)
    return None


def unrecorded(own: Sequence[Message]) -> list[ToolCall]:
    """Calls that may have been started, and have no result."""
    done = {message.result.call_id for message in own if isinstance(message, ToolMessage)}
    return [call for call in _calls(own) if call.id not in done]


def _failed(turn: BrokenOff) -> Outcome:
    return _without_effects(turn.own, "the server stopped before the answer was complete")


def _without_effects(own: Sequence[Message], error: str) -> Outcome:
    """Asking again must not run a tool twice that may have had its effect."""
    if unsafe := sorted({call.name for call in _calls(own) if not call.idempotent}):
        error = (
            f"{error}, after it had called {', '.join(unsafe)}, which may have had its effect;"
            " look before you ask again under a new message id"
        )
        return Outcome(TurnState.FAILED, Reason.TOOL_UNKNOWN, error)
    return Outcome(TurnState.FAILED, Reason.CRASHED, f"{error}; send the message again", retryable=True)


def _calls(own: Sequence[Message]) -> list[ToolCall]:
    return [call for message in own if isinstance(message, ModelMessage) for call in message.calls]


def _shown(call: ToolCall) -> str:
    arguments = call.arguments
    if len(arguments) > _SHOWN_ARGUMENTS:
        arguments = f"{arguments[:_SHOWN_ARGUMENTS]}..."
    return f"{call.name}({arguments})"
