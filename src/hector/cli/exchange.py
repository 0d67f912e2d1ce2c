"""A message to an agent, and its turn as it is shown: what `call` and `chat` have in common."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol, assert_never

from hector.cli.output import count, note, visible_id
from hector.domain.errors import InvalidError
from hector.domain.events import (
    Summarizing,
    TextDelta,
    ThinkingDelta,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnEvent,
    TurnReset,
    TurnStarted,
    TurnWaiting,
)
from hector.domain.messages import Text, UserMessage
from hector.domain.turns import Turn, TurnState
from hector.runtime.handle import TurnHandle
from hector.runtime.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Request:
    agent: str
    user: str
    text: str
    session_id: str | None
    """None for a new session."""
    task_id: str | None = None
    """The paused turn that this answers."""
    stream: bool = True


class Display(Protocol):
    async def show(self, event: TurnEvent) -> None:
        """Called with every event of the turn, in their order; `TurnEnded` is the last."""
        ...


async def exchange(
    runtime: Runtime, request: Request, display: Display, taken: Callable[[TurnHandle], None]
) -> Turn:
    """The turn at its end, which the display has shown. `taken` is called once the message is stored.

    Cancelling it cancels the turn. Raises `CallerError` and `StorageError`.
    """
    if not request.text.strip():
        raise InvalidError("MESSAGE", "is empty")
    sending = asyncio.ensure_future(
        runtime.send(
            request.agent,
            request.user,
            UserMessage((Text(request.text),)),
            session_id=request.session_id,
            task_id=request.task_id,
            stream=request.stream,
        )
    )
    try:
        # Shielded, so that a turn which was begun meanwhile is known and can be ended.
        handle = await asyncio.shield(sending)
        taken(handle)
        async with aclosing(handle.told()) as events:
            async for told in events:
                await display.show(told.event)
        return await handle.result()
    except asyncio.CancelledError:
        stopping = asyncio.ensure_future(_stop(runtime, request, sending))
        while not stopping.done():
            # Who asks once more has been heard: what is begun here is not to run on unseen.
            with suppress(asyncio.CancelledError):
                await asyncio.shield(stopping)
        stopping.result()
        raise


async def _stop(runtime: Runtime, request: Request, sending: asyncio.Future[TurnHandle]) -> None:
    handle = await sending
    await runtime.cancel(request.agent, request.user, handle.turn_id)


class ReplyWriter:
    """Writes what the agent says, as it comes, to the output, and how the turn fares to standard error."""

    def __init__(
        self, write: Callable[[str], Awaitable[None]], *, label: str = "", tells_tools: bool = False
    ) -> None:
        """The label is written before each reply."""
        self._write = write
        self._label = label
        self._tells_tools = tells_tools
        self._written = ""
        """Of what the model is saying now."""

    async def show(self, event: TurnEvent) -> None:
        match event:
            case TurnWaiting(ahead=ahead):
                note(f"the session is busy: waiting for {count(max(ahead, 1), 'turn')} before this one")
            case TextDelta(text=text):
                await self._say(text)
            case ToolStarted(call=call):
                await self.end_line()
                if self._tells_tools:
                    note(f"  (runs {call.name})")
            case Summarizing():
                note("(the conversation has grown long: it is summarised first)")
            case TurnReset():
                await self.end_line()
                note("the server stopped: the answer begins anew")
            case TurnEnded(turn=turn):
                await self._show_end(turn)
            case TurnStarted() | ThinkingDelta() | ToolFinished():
                pass
            case _:
                assert_never(event)

    async def _show_end(self, turn: Turn) -> None:
        # A question of a tool was not streamed, and a repeat's answer neither.
        if turn.state in {TurnState.COMPLETED, TurnState.INPUT_REQUIRED}:
            if not turn.reply.startswith(self._written):
                await self.end_line()
            await self._say(turn.reply[len(self._written) :])
        await self.end_line()

    async def _say(self, text: str) -> None:
        if text and not self._written:
            await self._write(self._label)
        self._written += text
        await self._write(text)

    async def end_line(self) -> None:
        """Be ready for the next turn, or for what others write."""
        if self._written and not self._written.endswith("\n"):
            await self._write("\n")
        self._written = ""


def failure(turn: Turn) -> str | None:
    """What to tell of a turn that ended without an answer; None if it has one, or asks something."""
    match turn.state:
        case TurnState.COMPLETED | TurnState.INPUT_REQUIRED:
            return None
        case TurnState.FAILED:
            return turn.error or f"the turn failed: {turn.reason}"
        case _:
            return f"the turn is {turn.state}: {turn.error or turn.reason or 'no reason given'}"


def session_line(session_id: str, *, new: bool, messages: int) -> str:
    """`session work: resumed, 4 messages`."""
    what = "new" if new else f"resumed, {count(messages, 'message')}"
    return f"session {visible_id(session_id)}: {what}"
