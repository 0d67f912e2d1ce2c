"""`hector call`: one message, and its answer."""

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from hector.cli.config_file import keeps_sessions
from hector.cli.exchange import ReplyWriter, Request, exchange, failure, session_line
from hector.cli.output import Output, complain, note, visible_id
from hector.config.model import Config
from hector.domain.errors import InvalidError
from hector.domain.events import TurnEnded, TurnEvent, TurnWaiting
from hector.domain.messages import JsonValue
from hector.domain.turns import Turn
from hector.runtime.build import open_runtime
from hector.runtime.handle import TurnHandle

if TYPE_CHECKING:
    from hector.cli.remote import Address


def message_of(argument: str) -> str:
    """The message itself, or what standard input holds for `-`."""
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidError("MESSAGE", f"standard input is not UTF-8 at byte {error.start}") from None


async def call(config: Config, request: Request, *, as_json: bool) -> int:
    """The exit status."""
    return await _interruptible(_call(config, request, as_json=as_json))


async def call_server(address: "Address", request: Request, *, as_json: bool) -> int:
    """As `call`, of an agent that a server has. Raises `RemoteError`."""
    return await _interruptible(_call_server(address, request, as_json=as_json))


async def _interruptible(calling: Coroutine[Any, Any, int]) -> int:
    """SIGTERM cancels the turn as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await calling
    except asyncio.CancelledError:
        if not terminated:
            raise
        return 128 + signal.SIGTERM


async def _call(config: Config, request: Request, *, as_json: bool) -> int:
    output = Output()
    writer = ReplyWriter(output.write)
    handles: list[TurnHandle] = []

    def taken(handle: TurnHandle) -> None:
        handles.append(handle)
        new, messages = handle.new_session, handle.earlier_messages
        note(session_line(handle.key.session_id, new=new, messages=messages))
        if request.session_id is not None and not keeps_sessions(config, request.agent):
            note(f"agent {request.agent} has no session_store: this session ends with this command")

    async with open_runtime(config, only_agent=request.agent, adopts=False) as runtime:
        turn = await exchange(runtime, request, _Silent(writer) if as_json else writer, taken)
    handle = handles[0]
    here: dict[str, JsonValue] = {
        "newSession": handle.new_session,
        "earlierMessages": handle.earlier_messages,
        "messageId": handle.message_id,
        "usage": {"inputTokens": turn.usage.input_tokens, "outputTokens": turn.usage.output_tokens},
    }
    return await _end(output, turn, _shown(turn) | here if as_json else None)


async def _call_server(address: "Address", request: Request, *, as_json: bool) -> int:
    # Half a second to import, which a call without a server need not spend.
    from hector.cli.remote import connected  # noqa: PLC0415

    output = Output()
    writer = ReplyWriter(output.write)
    async with connected(address) as agent:
        turn = await agent.exchange(
            request.text,
            _Silent(writer) if as_json or not request.stream else writer,
            session_id=request.session_id,
            task_id=request.task_id,
        )
    if not (as_json or request.stream):
        await writer.show(TurnEnded(turn))
    if turn.key.session_id:  # not every server keeps them
        note(f"session {visible_id(turn.key.session_id)}")
    return await _end(output, turn, _shown(turn) if as_json else None)


async def _end(output: Output, turn: Turn, shown: dict[str, JsonValue] | None) -> int:
    """The exit status; `shown` is printed as JSON."""
    if shown:
        await output.write(f"{json.dumps(shown, ensure_ascii=False, indent=2)}\n")
    elif turn.state.paused:
        session = visible_id(turn.key.session_id)
        note(f"the agent waits for an answer: send it with --session={session} --task={turn.id}")
    if problem := failure(turn):
        complain(problem)
        return 1
    return 0


class _Silent:
    """Shows nothing but that the session is busy."""

    def __init__(self, writer: ReplyWriter) -> None:
        self._writer = writer

    async def show(self, event: TurnEvent) -> None:
        if isinstance(event, TurnWaiting):
            await self._writer.show(event)


def _shown(turn: Turn) -> dict[str, JsonValue]:
    return {
        "session": turn.key.session_id,
        "task": turn.id,
        "state": turn.state,
        "reply": turn.reply,
        "reason": turn.reason,
        "error": turn.error,
        "retryable": turn.retryable,
    }
