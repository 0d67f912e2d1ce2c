"""How a session's stored messages read to a model; pure, and shared by all working memories."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from hector.domain.memory import Sent, TokenCounter
from hector.domain.messages import (
    Message,
    ModelMessage,
    StoredMessage,
    Text,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from hector.domain.turns import Reason

SUMMARY_HEAD = "[summary of the conversation so far]\n"


@dataclass(frozen=True, slots=True)
class Said:
    """A message by itself."""

    message: UserMessage | ModelMessage
    tokens: int
    """As stored; without the marker."""
    seq: int
    unanswered: str | None = None
    """The marker's reason, where the message bears one."""

    @property
    def messages(self) -> tuple[Message, ...]:
        return (with_marker(self.message, self.unanswered),)

    @property
    def seqs(self) -> tuple[int, ...]:
        return (self.seq,)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A model's message with calls and all their results in the calls' order: sent together or not at all."""

    asking: ModelMessage
    asking_tokens: int
    results: tuple[ToolMessage, ...]
    result_tokens: tuple[int, ...]
    seqs: tuple[int, ...]
    """Of the message with the calls, then of each result."""

    @property
    def tokens(self) -> int:
        return self.asking_tokens + sum(self.result_tokens)

    @property
    def messages(self) -> tuple[Message, ...]:
        return (self.asking, *self.results)


Unit = Said | Exchange


def units(stored: Iterable[StoredMessage]) -> list[Unit]:
    """What is sent of the messages, oldest first, in units that must not be parted.

    A turn's messages stand together where its last one stands, whatever lies between them in the session.
    What was superseded is nothing; a turn without an answer is its user's messages, the last with a marker.
    """
    turns: dict[str, list[StoredMessage]] = {}
    for message in stored:
        if message.unanswered == Reason.SUPERSEDED:
            continue
        # Taken out and put back at the end, so that the turn stands where its last message does.
        turns[message.turn_id] = [*turns.pop(message.turn_id, ()), message]
    return [unit for turn in turns.values() for unit in _units_of_turn(turn)]


def sent(unit: Unit, *, marker_tokens: int = 0) -> Sequence[Sent]:
    """All of it; `marker_tokens` are those of its marker, if it has one."""
    match unit:
        case Said(tokens=tokens, seqs=seqs):
            return [Sent(unit.messages[0], tokens + marker_tokens, seqs)]
        case Exchange():
            costs = (unit.asking_tokens, *unit.result_tokens)
            return [
                Sent(message, tokens, (seq,))
                for message, tokens, seq in zip(unit.messages, costs, unit.seqs, strict=True)
            ]
        case _:
            assert_never(unit)


def marker_cost(unit: Unit, counter: TokenCounter) -> int:
    """Tokens of its marker; 0 without one."""
    reason = unit.unanswered if isinstance(unit, Said) else None
    return counter.count(marker(reason)) if reason else 0


def cost(unit: Unit, counter: TokenCounter) -> int:
    """Tokens of all of it, as it is sent."""
    return unit.tokens + marker_cost(unit, counter)


def marker(reason: str) -> str:
    return f"\n[not answered: {reason}]"


def with_marker(message: UserMessage | ModelMessage, reason: str | None) -> UserMessage | ModelMessage:
    if reason is None or isinstance(message, ModelMessage):
        return message
    return replace(message, parts=(*message.parts, Text(marker(reason))))


def summary_message(text: str) -> UserMessage:
    return UserMessage((Text(f"{SUMMARY_HEAD}{text}"),))


def _units_of_turn(turn: Sequence[StoredMessage]) -> list[Unit]:
    reason = next((stored.unanswered for stored in turn if stored.unanswered), None)
    if reason is not None:
        said = [Said(s.message, s.tokens, s.seq or 0) for s in turn if isinstance(s.message, UserMessage)]
        return [*said[:-1], *(replace(last, unanswered=reason) for last in said[-1:])]
    results = {s.message.result.call_id: s for s in turn if isinstance(s.message, ToolMessage)}
    return [unit for stored in turn if (unit := _unit(stored, results))]


def _unit(stored: StoredMessage, results: dict[str, StoredMessage]) -> Unit | None:
    match stored.message:
        case ToolMessage():
            return None
        case ModelMessage(parts=()):
            # Providers refuse a message that says nothing.
            return None
        case ModelMessage(calls=calls) as asking if calls:
            return _exchange(asking, stored, calls, results)
        case UserMessage() | ModelMessage() as message:
            return Said(message, stored.tokens, stored.seq or 0)
        case _:
            assert_never(stored.message)


def _exchange(
    asking: ModelMessage, stored: StoredMessage, calls: Sequence[ToolCall], results: dict[str, StoredMessage]
) -> Exchange | None:
    found = [results[call.id] for call in calls if call.id in results]
    if len(found) < len(calls):
        return None
    answers = tuple(s.message for s in found if isinstance(s.message, ToolMessage))
    seqs = (stored.seq or 0, *(s.seq or 0 for s in found))
    return Exchange(asking, stored.tokens, answers, tuple(s.tokens for s in found), seqs)
