"""The operations on what running turns have told, for streams that are broken off.

A batch is one row of `turn_events`: a JSON array, with the numbers of its first and last event. An event is
written as the part of a message that it shows (see `codec`); the start of a run, which shows none, as `{}`,
and that the conversation is summarised first as `{"memory": "summarizing"}`.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, assert_never

from hector.domain.errors import LeaseLostError
from hector.domain.events import (
    EventId,
    Progress,
    RunEvent,
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
from hector.domain.ids import SessionKey
from hector.domain.messages import Part, Text, Thinking, ToolCall, ToolResult
from hector.domain.turns import Lease, Turn, TurnState
from hector.storage import statements as sql
from hector.storage.codec import decode_part, encode_part, to_json
from hector.storage.operations import Operation, execute, fetch, together
from hector.storage.reading import Parameters, key_parameters, read_turn, time_of
from hector.storage.repeats import as_it_stood, find_earlier
from hector.storage.rows import is_held, lock

_SUMMARIZING = {"memory": "summarizing"}


def add_events(lease: Lease, events: Sequence[Told]) -> Operation[None]:
    """Keep those that are not kept yet: an earlier run without an answer may have kept the first."""
    names = key_parameters(lease.key) | {"turn": lease.turn_id, "attempt": lease.attempt}
    # The lock, so that no session is deleted meanwhile that would leave them behind.
    row, ((last,),) = yield from together(lock(names), fetch(sql.LAST_EVENT, names))
    if row is None or not is_held(row, lease):
        raise LeaseLostError(lease.turn_id)
    new = [told for told in events if _number(told) > (last or 0)]
    if new:
        yield from execute(sql.INSERT_EVENTS, names | batch(new))


def batch(events: Sequence[Told]) -> Parameters:
    return {
        "first_number": _number(events[0]),
        "last_number": _number(events[-1]),
        "content": to_json([_encode(told) for told in events]),
    }


def progress(
    agent_id: str, user_id: str, turn_id: str, after: EventId, message_id: str
) -> Operation[Progress | None]:
    names = {"agent": agent_id, "user": user_id, "turn": turn_id}
    found = yield from fetch(sql.TURN_PROGRESS, names)
    if not found:
        return None
    session_id, state_name, attempt, past_runs = found[0]
    if message_id and past_runs:
        key = SessionKey(agent_id, user_id, session_id)
        if stood := (yield from _at_its_pause(key, turn_id, message_id)):
            return Progress(stood.state, after.attempt, [], stood)
    state = TurnState(state_name)
    number = after.number if after.attempt == attempt else 0
    rows = yield from fetch(sql.EVENTS_AFTER, names | {"attempt": attempt, "number": number})
    events = [
        Told(_decode(turn_id, event), EventId(attempt, place))
        for first, content in rows
        for place, event in enumerate(json.loads(content), first)
        if place > number
    ]
    turn = None if state is TurnState.WORKING else (yield from read_turn(agent_id, user_id, turn_id))
    return Progress(state, attempt, events, turn)


def _at_its_pause(key: SessionKey, turn_id: str, message_id: str) -> Operation[Turn | None]:
    """The turn as the run of that message left it, if others went on with it since."""
    earlier = yield from find_earlier(key_parameters(key), message_id)
    if earlier is None or earlier.turn_id != turn_id or earlier.run_state is None:
        return None
    stood = yield from as_it_stood(key, earlier)
    return stood if stood.state.paused else None


def forget_events(
    agent_id: str, retention: float, time_argument: Callable[[datetime], Any]
) -> Operation[int]:
    """Delete the events of turns that are gone, or ended so many seconds ago by the database's clock."""
    ((now,),) = yield from fetch(sql.DATABASE_TIME, {})
    moment = time_of(now)
    assert moment, "a clock tells a time"
    before = time_argument(moment - timedelta(seconds=retention))
    return (yield from execute(sql.FORGET_EVENTS, {"agent": agent_id, "before": before}))


def _number(told: Told) -> int:
    assert told.id, "what a run tells has a number"
    return told.id.number


def _encode(told: Told) -> dict[str, Any]:
    match told.event:
        case TurnStarted():
            return {}
        case Summarizing():
            return dict(_SUMMARIZING)
        case TextDelta(text):
            return encode_part(Text(text), {})
        case ThinkingDelta(text):
            return encode_part(Thinking(text), {})
        case ToolStarted(call):
            return encode_part(call, {})
        case ToolFinished(result):
            return encode_part(result, {})
        case TurnWaiting() | TurnReset() | TurnEnded():
            raise ValueError(f"{type(told.event).__name__} is no part of a run")
        case _:
            assert_never(told.event)


def _decode(turn_id: str, stored: dict[str, Any]) -> RunEvent:
    if stored == _SUMMARIZING:
        return Summarizing()
    part: Part | None = decode_part(stored, {}) if stored else None
    match part:
        case None:
            return TurnStarted(turn_id)
        case Text(text):
            return TextDelta(text)
        case Thinking(text):
            return ThinkingDelta(text)
        case ToolCall():
            return ToolStarted(part)
        case ToolResult():
            return ToolFinished(part)
        case _:
            raise ValueError(f"no event is stored as a {type(part).__name__}")
