"""A store, a model and tools for the tests of the turn: they do as told and keep what they were given."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from hector.domain.agents import Agent
from hector.domain.errors import LeaseLostError, StorageError
from hector.domain.events import TextDelta, TurnEvent
from hector.domain.ids import SessionKey
from hector.domain.memory import Selection, Sent, Tail, TailLimit
from hector.domain.messages import (
    JsonValue,
    Message,
    ModelMessage,
    StoredMessage,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
)
from hector.domain.models import ModelEvent, ModelReply, ModelRequest
from hector.domain.tools import Tool, ToolSpec
from hector.domain.turns import (
    Accepted,
    Arrival,
    Begun,
    Lease,
    NewMessage,
    Outcome,
    Recovery,
    Taken,
    Turn,
    TurnSettings,
    TurnState,
)
from hector.engine.turn import TurnRun

KEY = SessionKey("helper", "", "s1")


def user(text: str) -> UserMessage:
    return UserMessage((Text(text),))


def said(text: str) -> ModelMessage:
    return ModelMessage((Text(text),))


def call(name: str, arguments: str = "{}", *, id: str = "c1", idempotent: bool = False) -> ToolCall:  # noqa: A002
    return ToolCall(id, name, arguments, idempotent)


def asking(*calls: ToolCall) -> ModelMessage:
    return ModelMessage(calls)


def begun(*own: Message, tail: Tail | None = None) -> Begun:
    stored = tuple(StoredMessage(message, seq, "t1") for seq, message in enumerate(own, start=1))
    lease = Lease(KEY, "t1", "r1", epoch=1, attempt=1, seq=len(own), run_seq=len(own))
    return Begun(lease, tail or Tail(), stored)


class RecordingStore:
    """Guards the one turn by its lease, as a real store does. `troubles` are raised first, one a call."""

    def __init__(self, *troubles: StorageError) -> None:
        self.log: list[Message | TurnState] = []
        self.appended: list[NewMessage] = []
        self.outcome: Outcome | None = None
        self.calls = 0
        self.troubles = list(troubles)
        self.troubles_after_commit: list[StorageError] = []
        self.before_append: Callable[[], Awaitable[None]] | None = None
        self._lease: Lease | None = None
        self._given: dict[Lease, Lease] = {}

    @property
    def messages(self) -> list[Message]:
        return [new.message for new in self.appended]

    async def append(self, lease: Lease, messages: Sequence[NewMessage]) -> Lease:
        self._trouble()
        if self.before_append:
            await self.before_append()
        if lease not in self._given:
            self._check(lease)
            self._record(messages)
            self._lease = self._given[lease] = replace(lease, seq=lease.seq + len(messages))
        if self.troubles_after_commit:
            raise self.troubles_after_commit.pop(0)
        return self._given[lease]

    async def end(self, lease: Lease, messages: Sequence[NewMessage], outcome: Outcome) -> Turn:
        self._trouble()
        if self.outcome is None:
            self._check(lease)
            self._record(messages)
            self.log.append(outcome.state)
            self.outcome = outcome
        if self.troubles_after_commit:
            raise self.troubles_after_commit.pop(0)
        done = self.outcome
        usage = sum((new.usage for new in self.appended), done.usage)
        return Turn(
            lease.turn_id, lease.key, done.state, done.reason, done.error, done.retryable, usage=usage
        )

    def lose_lease(self) -> None:
        self._lease = Lease(KEY, "another", "r2", epoch=2, attempt=1, seq=99, run_seq=99)

    def _check(self, lease: Lease) -> None:
        if self._lease is not None and lease != self._lease:
            raise LeaseLostError(lease.turn_id)

    def _record(self, messages: Sequence[NewMessage]) -> None:
        self.appended += messages
        self.log += [new.message for new in messages]

    def _trouble(self) -> None:
        self.calls += 1
        if self.troubles:
            raise self.troubles.pop(0)

    async def accept(self, arrival: Arrival, limit: TailLimit) -> Accepted:
        _not_the_engines()

    async def hand_over(self, lease: Lease) -> None:
        _not_the_engines()

    async def take(
        self,
        key: SessionKey,
        replica_id: str,
        limit: TailLimit,
        recovery: Recovery,
        leaked: str | None = None,
        *,
        max_wait: float = math.inf,
    ) -> Taken:
        _not_the_engines()

    async def withdraw(self, key: SessionKey, turn_id: str, message_id: str, reason: str) -> Turn | None:
        _not_the_engines()

    async def cancel(self, key: SessionKey, turn_id: str) -> Turn | None:
        _not_the_engines()

    async def turn(self, agent_id: str, user_id: str, turn_id: str) -> Turn | None:
        _not_the_engines()


def _not_the_engines() -> NoReturn:
    raise AssertionError("a turn's run only appends and ends")


Line = ModelMessage | BaseException | Callable[[], Awaitable[ModelMessage]]


class ScriptedModel:
    """Answers with its lines: an exception is raised, a function awaited. Each reply costs 10 + 1 tokens."""

    name = "scripted"
    context_window = None

    def __init__(self, *lines: Line) -> None:
        self.lines = list(lines)
        self.requests: list[ModelRequest] = []
        self.closed = 0

    async def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        self.requests.append(request)
        try:
            line = self.lines.pop(0)
            if isinstance(line, BaseException):
                raise line
            message = line if isinstance(line, ModelMessage) else await line()
            if request.stream and message.text:
                yield TextDelta(message.text)
            yield ModelReply(message, Usage(10, 1))
        finally:
            self.closed += 1

    async def warm_up(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Everything:
    """Working memory that sends all."""

    limit = TailLimit(messages=1000)
    compaction = None

    def __init__(self, *, room_for: int = 1000) -> None:
        self._room_for = room_for
        """Messages; beyond them it overflows."""

    def select(self, tail: Tail) -> Selection:
        sent = [Sent(stored.message, stored.tokens) for stored in tail.messages]
        return Selection(sent, overflowed=len(sent) > self._room_for)


class Words:
    """A token is a word."""

    def count(self, text: str) -> int:
        return len(text.split())

    def cut(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:tokens])


class FakeTool:
    """Does what `answer` does with the arguments, which may be to raise."""

    def __init__(
        self,
        name: str,
        answer: Callable[[Mapping[str, JsonValue]], Awaitable[str]] | BaseException | str = "done",
        *,
        idempotent: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.spec = ToolSpec(name, "", {"type": "object"})
        self.idempotent, self.timeout = idempotent, timeout
        self.runs: list[Mapping[str, JsonValue]] = []
        self._answer = answer

    async def run(self, arguments: Mapping[str, JsonValue]) -> str:
        self.runs.append(arguments)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer if isinstance(self._answer, str) else await self._answer(arguments)


class Forever:
    """An answer that never comes, and that notes when it starts and how it ends."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.stopped = False

    async def __call__(self, arguments: Mapping[str, JsonValue] | None = None) -> NoReturn:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped = True
        raise AssertionError("it waits for nothing")


class Scene:
    """One turn with its parts."""

    def __init__(
        self,
        model: ScriptedModel,
        *tools: Tool,
        own: Sequence[Message] = (user("hi"),),
        store: RecordingStore | None = None,
        tail: Tail | None = None,
        max_steps: int = 20,
        stream: bool = True,
        patience: float = 60,
        emit: Callable[[TurnEvent], None] | None = None,
    ) -> None:
        self.model, self.store = model, store or RecordingStore()
        self.events: list[TurnEvent] = []
        agent = Agent(
            "helper",
            "Be brief.",
            model,
            Everything(),
            Words(),
            {tool.spec.name: tool for tool in tools},
            TurnSettings(max_steps=max_steps),
            "",
        )
        self.run = TurnRun(
            begun(*own, tail=tail),
            agent,
            self.store,
            emit or self.events.append,
            stream=stream,
            patience=patience,
        )

    @property
    def sent(self) -> Sequence[Message]:
        """What the model was sent last."""
        return self.model.requests[-1].messages


def result(
    text: str,
    name: str,
    *,
    id: str = "c1",  # noqa: A002
    is_error: bool = False,
    question: str | None = None,
) -> ToolResult:
    return ToolResult(id, name, text, is_error, question)
