"""Runs a begun turn to its end: the loop around `next_step`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar, assert_never

from hector.domain.agents import Agent
from hector.domain.errors import (
    ModelError,
    OutcomeUnknownError,
    StorageError,
    StoreUnavailableError,
)
from hector.domain.events import RunEvent, Summarizing, TextDelta, ThinkingDelta, ToolFinished, ToolStarted
from hector.domain.memory import Sent, Tail
from hector.domain.messages import (
    Message,
    ModelMessage,
    Text,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from hector.domain.models import ModelReply, ModelRequest
from hector.domain.recovery import BrokenOff, give_up
from hector.domain.tokens import count_message
from hector.domain.turns import Begun, Lease, NewMessage, Outcome, Reason, Turn, TurnState, TurnStore
from hector.engine.clean import accepted
from hector.engine.defects import describe_defect
from hector.engine.steps import AskModel, Finish, Pause, RunTools, in_call_order, next_step, told_again
from hector.engine.toolbox import Toolbox

PATIENCE = 600.0
"""Seconds for which a silent store is asked again, so that an answer that was paid for is kept."""
SILENCE = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


class TurnRun:
    """One run of a turn.

    `run` gives the ended turn, also where it failed. Cancellation is the caller's affair: whoever cancels the
    task of `run` awaits it and then ends the turn by `store.end(run.lease, [], run.canceled())`, or by
    `run.failed(...)` in its place.
    """

    def __init__(
        self,
        begun: Begun,
        agent: Agent,
        store: TurnStore,
        emit: Callable[[RunEvent], None],
        *,
        make_room: Callable[[], Awaitable[Tail] | None] | None = None,
        before_end: Callable[[], Awaitable[None]] | None = None,
        on_silence: Callable[[], None] | None = None,
        stream: bool,
        patience: float = PATIENCE,
    ) -> None:
        self._agent = agent
        self._store = store
        self._emit = emit
        self._make_room = make_room
        """Called where the conversation outgrew its budget; None where a summary is not to be had soon."""
        self._before_end = before_end
        self._on_silence = on_silence
        """Called when the store has not answered for `SILENCE` seconds."""
        self._stream = stream
        self._patience = patience
        self._toolbox = Toolbox(agent.tools)
        self._lease = begun.lease
        self._appending = asyncio.Lock()
        self._usage = Usage()
        """Of the model calls that are not counted in the store."""
        self._tail = self._before(begun.tail)
        self._context: Sequence[Message] | None = None
        """What is sent of what lies before; the same for each call, so that providers know it again."""
        self._stored: list[Message] = [each.message for each in begun.own]
        self._own_tokens = sum(each.tokens for each in begun.own)
        ids = [each.message_id for each in begun.own if isinstance(each.message, UserMessage)]
        self._message_id = ids[-1] if ids else None
        self._reply: ModelMessage | None = None

    @property
    def lease(self) -> Lease:
        """As the last append left it."""
        return self._lease

    @property
    def tokens(self) -> int:
        """Of the latest summary and all after it, as far as that was read, with what this turn added."""
        summary = self._tail.summary.tokens if self._tail.summary else 0
        return summary + sum(each.tokens for each in self._tail.messages) + self._own_tokens

    async def run(self) -> Turn:
        """Tells first what the steps told that are stored already.

        Raises `LeaseLostError`, and `OutcomeUnknownError` if the store is silent for `patience` seconds.
        When it raises, the model and the tools have been stopped.
        """
        for event in told_again(self._stored):
            self._emit(event)
        try:
            return await self._to_the_end()
        except StorageError:
            raise
        except ModelError as error:
            outcome = self.failed(error.reason, str(error), retryable=error.retryable)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            outcome = self._defect(error)
        except Exception as error:  # noqa: BLE001 - a defect must end the turn, or its session is blocked
            outcome = self._defect(error)
        return await self._end([], outcome)

    def canceled(self) -> Outcome:
        """By its user."""
        return Outcome(TurnState.CANCELED, Reason.CANCELED, "canceled by its user", self._usage)

    def failed(self, reason: str, error: str, *, retryable: bool = False) -> Outcome:
        """Where a tool that must not run twice was called, `tool_unknown`: no repeat may run it again."""
        if unsafe := self._unsafe_tools():
            names = ", ".join(map(repr, unsafe))
            error = f"{error}; the message is not run again, because it may have had effects through {names}"
            return Outcome(TurnState.FAILED, Reason.TOOL_UNKNOWN, error, self._usage)
        return Outcome(TurnState.FAILED, reason, error, self._usage, retryable)

    def can_go_on_elsewhere(self) -> bool:
        """Another replica may run it on from its last stored message."""
        broken_off = BrokenOff(self._stored, attempts=1, handed_over=True)
        return give_up(broken_off, self._agent.turns.recovery) is None

    async def _to_the_end(self) -> Turn:
        while True:
            own = [*self._stored, *([self._reply] if self._reply else [])]
            step = next_step(own, max_steps=self._agent.turns.max_steps)
            match step:
                case AskModel():
                    self._reply = await self._ask()
                case RunTools(calls):
                    await self._store_reply()
                    await self._run_tools(calls)
                case Pause(question):
                    paused = Outcome(TurnState.INPUT_REQUIRED, Reason.WAITING_FOR_INPUT, usage=self._usage)
                    return await self._end([ModelMessage((Text(question),))], paused)
                case Finish(answered=True):
                    completed = Outcome(TurnState.COMPLETED, usage=self._usage)
                    return await self._end([self._reply] if self._reply else [], completed)
                case Finish():
                    return await self._end([], self._out_of_steps())
                case _:
                    assert_never(step)

    async def _ask(self) -> ModelMessage:
        if self._context is None:
            self._context = [sent.message for sent in await self._selected()]
        request = ModelRequest(
            self._agent.instructions,
            [*self._context, *in_call_order(self._stored)],
            self._toolbox.specs,
            self._stream,
            self._message_id,
        )
        reply: ModelReply | None = None
        async with aclosing(self._agent.model.respond(request)) as events:
            async for event in events:
                match event:
                    case TextDelta() | ThinkingDelta():
                        self._emit(event)
                    case ModelReply():
                        reply = event
                    case _:
                        assert_never(event)
        if reply is None:
            raise RuntimeError(f"model {self._agent.model.name!r} ended without a reply")
        self._usage += reply.usage
        used_ids = {call.id for call in self._calls()}
        return accepted(reply.message, used_ids=used_ids, idempotent=self._toolbox.idempotent)

    async def _selected(self) -> Sequence[Sent]:
        """What is sent of what lies before; summarised first where some of it would be lost to the model."""
        selection = self._agent.memory.select(self._tail)
        if selection.overflowed and self._make_room and (room := self._make_room()):
            self._emit(Summarizing())
            try:
                self._tail = self._before(await room)
            except StorageError as error:
                _log.debug("what a summary left is not known: %s", error)
            selection = self._agent.memory.select(self._tail)
        return selection.sent

    def _before(self, tail: Tail) -> Tail:
        # A store that reads by seq could give a resumed turn's earlier messages twice.
        others = tuple(each for each in tail.messages if each.turn_id != self._lease.turn_id)
        return Tail(others, tail.summary)

    async def _store_reply(self) -> None:
        # A resumed turn may begin with calls that are stored already.
        if self._reply is not None:
            await self._append(self._reply, self._usage)
            self._reply = None

    async def _run_tools(self, calls: Sequence[ToolCall]) -> None:
        """Run the calls side by side."""
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._run_tool(call))
        except BaseExceptionGroup as failures:
            # A tool's own failure is a result, so these came from the store, and the first says it all.
            raise failures.exceptions[0] from None

    async def _run_tool(self, call: ToolCall) -> None:
        self._emit(ToolStarted(call))
        result = await self._toolbox.run(call)
        await self._append(ToolMessage(result))
        self._emit(ToolFinished(result))

    async def _append(self, message: Message, usage: Usage = Usage()) -> None:
        new = replace(await self._counted(message), usage=usage)
        async with self._appending:
            await self._insist(lambda: _untorn(self._append_once(new)))

    async def _append_once(self, new: NewMessage) -> None:
        self._lease = await self._store.append(self._lease, [new])
        self._stored.append(new.message)
        if new.usage:
            self._usage = Usage()

    async def _end(self, messages: Sequence[Message], outcome: Outcome) -> Turn:
        last = [await self._counted(message) for message in messages]
        if self._before_end:
            await self._before_end()
        return await self._insist(lambda: self._store.end(self._lease, last, outcome))

    async def _insist(self, operation: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        silent = loop.call_later(SILENCE, self._on_silence) if self._on_silence else None
        try:
            return await _insist(operation, self._patience)
        finally:
            if silent:
                silent.cancel()

    async def _counted(self, message: Message) -> NewMessage:
        tokens = await count_message(self._agent.tokens, message)
        self._own_tokens += tokens
        return NewMessage(message, tokens)

    def _calls(self) -> list[ToolCall]:
        """Those that are stored, so that their tools may have been run."""
        return [call for each in self._stored if isinstance(each, ModelMessage) for call in each.calls]

    def _unsafe_tools(self) -> list[str]:
        return list(dict.fromkeys(call.name for call in self._calls() if not call.idempotent))

    def _out_of_steps(self) -> Outcome:
        limit = self._agent.turns.max_steps
        return self.failed(
            Reason.OUT_OF_STEPS,
            f"no answer after {limit} model calls, the limit (turns.max_steps): the model kept calling tools",
        )

    def _defect(self, error: BaseException) -> Outcome:
        _log.error("turn %s has a defect:\n%s", self._lease.turn_id, describe_defect(error))
        return self.failed(Reason.INTERNAL, "internal error")


def _is_cancelled() -> bool:
    """False where a CancelledError came out of what was awaited, and nobody wants this task to stop."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _insist(operation: Callable[[], Awaitable[T]], patience: float) -> T:
    """Run an operation that is safe to repeat until the store answers."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    pause = _FIRST_PAUSE
    while True:
        try:
            return await operation()
        except (OutcomeUnknownError, StoreUnavailableError) as error:
            if loop.time() + pause > deadline:
                raise OutcomeUnknownError(
                    f"the session store gave no answer for {patience:g} s, so nobody knows what was stored;"
                    " the same message id is safe to repeat"
                ) from error
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _untorn(write: Coroutine[Any, Any, None]) -> None:
    """Let a write come to its end before a cancellation passes: else the current lease would be unknown."""
    task = asyncio.ensure_future(write)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        # Looked at, so that asyncio does not report it as lost.
        task.exception()
    raise cancelled
