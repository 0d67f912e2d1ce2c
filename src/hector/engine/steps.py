"""What a turn does next, decided from its messages; pure."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeAlias, assert_never

from hector.domain.events import RunEvent, TextDelta, ThinkingDelta, ToolFinished, ToolStarted
from hector.domain.messages import (
    Message,
    ModelMessage,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)


@dataclass(frozen=True, slots=True)
class AskModel:
    pass


@dataclass(frozen=True, slots=True)
class RunTools:
    calls: tuple[ToolCall, ...]
    """Those without a result, in the model's order."""


@dataclass(frozen=True, slots=True)
class Pause:
    question: str
    """What the tools asked the user, a line each, in the model's order."""


@dataclass(frozen=True, slots=True)
class Finish:
    answered: bool
    """False if the model still calls tools after its last allowed call."""


Step: TypeAlias = AskModel | RunTools | Pause | Finish


def next_step(own: Sequence[Message], *, max_steps: int) -> Step:
    """What comes after the turn's messages, which are oldest first.

    At most `max_steps` model calls answer one message of the user. The last of them must be the answer: tools
    whose results nobody would read are not run.
    """
    last = own[-1]
    match last:
        case UserMessage():
            return AskModel()
        case ModelMessage(calls=()):
            return Finish(answered=True)
        case ModelMessage() | ToolMessage():
            missing = _missing(own)
            if not missing and (questions := _questions(own)):
                return Pause("\n".join(questions))
            if _model_calls(own) >= max_steps:
                return Finish(answered=False)
            return RunTools(missing) if missing else AskModel()
        case _:
            assert_never(last)


def in_call_order(own: Sequence[Message]) -> list[Message]:
    """The same messages, the results right after their calls and in their order, not as they came in."""
    places = {
        call.id: (position, number)
        for position, message in enumerate(own)
        if isinstance(message, ModelMessage)
        for number, call in enumerate(message.calls, start=1)
    }

    def place(numbered: tuple[int, Message]) -> tuple[int, int]:
        position, message = numbered
        here = (position, 0)
        return places.get(message.result.call_id, here) if isinstance(message, ToolMessage) else here

    return [message for _, message in sorted(enumerate(own), key=place)]


def told_again(own: Sequence[Message]) -> list[RunEvent]:
    """What the stored steps of a run told when they were made, for those who listen to its next attempt.

    Without the calls that have no result: those are made, and told, once more.
    """
    since = list(takewhile(lambda message: not isinstance(message, UserMessage), reversed(own)))
    done = {message.result.call_id for message in since if isinstance(message, ToolMessage)}
    return [event for message in reversed(since) for event in _told_by(message, done)]


def _told_by(message: Message, done: AbstractSet[str]) -> Iterator[RunEvent]:
    match message:
        case ModelMessage():
            for part in message.parts:
                match part:
                    case Text(text):
                        yield TextDelta(text)
                    case Thinking(text):
                        yield ThinkingDelta(text)
                    case ToolCall(id) if id in done:
                        yield ToolStarted(part)
                    case _:
                        pass  # what is no text is sent with the reply
        case ToolMessage(result):
            yield ToolFinished(result)
        case UserMessage():
            return
        case _:
            assert_never(message)


def _model_calls(own: Sequence[Message]) -> int:
    """How many there were since the user last spoke."""
    since = takewhile(lambda message: not isinstance(message, UserMessage), reversed(own))
    return sum(isinstance(message, ModelMessage) for message in since)


def _missing(own: Sequence[Message]) -> tuple[ToolCall, ...]:
    """The calls of the last model message that have no result."""
    done = _results(own)
    return tuple(call for call in _last_calls(own) if call.id not in done)


def _questions(own: Sequence[Message]) -> list[str]:
    """What the calls of the last model message asked the user."""
    done = _results(own)
    results = [done[call.id] for call in _last_calls(own) if call.id in done]
    return [result.question for result in results if result.question is not None]


def _last_calls(own: Sequence[Message]) -> tuple[ToolCall, ...]:
    return next((message.calls for message in reversed(own) if isinstance(message, ModelMessage)), ())


def _results(own: Sequence[Message]) -> dict[str, ToolResult]:
    """By call."""
    return {message.result.call_id: message.result for message in own if isinstance(message, ToolMessage)}
