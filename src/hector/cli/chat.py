"""`hector chat`: a conversation, line by line."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hector.cli.config_file import keeps_sessions
from hector.cli.context import context_text
from hector.cli.exchange import ReplyWriter, Request, exchange, failure, session_line
from hector.cli.lines import Lines, PipedLines, TypedLines
from hector.cli.output import Output, complain, note, visible, visible_id
from hector.config.model import Config
from hector.domain.errors import HectorError
from hector.domain.ids import SessionKey
from hector.domain.turns import Turn
from hector.runtime.build import open_runtime
from hector.runtime.handle import TurnHandle
from hector.runtime.runtime import Runtime

if TYPE_CHECKING:
    from hector.cli.remote import Address

_LAST_WORDS = {"exit", "quit"}


async def chat(config: Config, agent: str, *, user: str, session_id: str | None) -> int:
    """The exit status: 1 if lines were piped in and a turn failed."""
    output = Output()
    typed = sys.stdin.isatty() and output.is_terminal
    async with open_runtime(config, only_agent=agent, adopts=False, summarizes=True) as runtime:
        session_id = await _enter(runtime, output, SessionKey(agent, user, session_id or ""), config)
        writer = ReplyWriter(output.write, label=f"{agent}> " if typed else "", tells_tools=typed)
        conversation = _Conversation(
            lambda request: exchange(runtime, request, writer, _nothing),
            Request(agent, user, "", session_id),
            writer,
            lambda: _show_context(runtime, output, SessionKey(agent, user, session_id)),
        )
        # While the first line is typed.
        warming_up = asyncio.create_task(runtime.warm_up())
        try:
            await conversation.hold(TypedLines() if typed else PipedLines())
        finally:
            warming_up.cancel()
    return 1 if conversation.failed and not typed else 0


async def chat_with(address: "Address", *, session_id: str | None) -> int:
    """As `chat`, with an agent that a server has. Raises `RemoteError`."""
    # Half a second to import, which a chat without a server need not spend.
    from hector.cli.remote import connected  # noqa: PLC0415

    output = Output()
    typed = sys.stdin.isatty() and output.is_terminal
    async with connected(address) as agent:
        label = f"{address.agent or agent.name}> " if typed else ""
        writer = ReplyWriter(output.write, label=label, tells_tools=typed)

        async def ask(request: Request) -> Turn:
            return await agent.exchange(
                request.text, writer, session_id=request.session_id, task_id=request.task_id
            )

        conversation = _Conversation(ask, Request(address.agent or "", "", "", session_id), writer)
        await conversation.hold(TypedLines() if typed else PipedLines())
    if conversation.request.session_id:
        note(f"resume later with: --session={visible_id(conversation.request.session_id)}")
    return 1 if conversation.failed and not typed else 0


async def _enter(runtime: Runtime, output: Output, key: SessionKey, config: Config) -> str:
    """The session's id, made if the key has none; tells which it is."""
    if key.session_id:
        session = await runtime.find_session(key)
        note(session_line(key.session_id, new=session is None, messages=session.messages if session else 0))
    else:
        key = await _new_session(runtime, key, int(time.time()))
        await output.write(f"💾 Session ID: {key.session_id}\n")
        if keeps_sessions(config, key.agent_id):
            await output.write(f"   Resume later with: --session={key.session_id}\n")
        note(session_line(key.session_id, new=True, messages=0))
    if not keeps_sessions(config, key.agent_id):
        note(f"agent {key.agent_id} has no session_store: this session ends with the chat")
    return key.session_id


async def _new_session(runtime: Runtime, key: SessionKey, now: int) -> SessionKey:
    """A session that nobody else has, although others may begin one in the same second."""
    key = replace(key, session_id=f"cli-chat-{now}")
    while not await runtime.create_session(key):
        key = replace(key, session_id=f"cli-chat-{now}-{os.urandom(3).hex()}")
    return key


@dataclass(slots=True)
class _Conversation:
    ask: Callable[[Request], Coroutine[Any, Any, Turn]]
    request: Request
    """Of which each line makes one."""
    writer: ReplyWriter
    show_context: Callable[[], Coroutine[Any, Any, None]] | None = None
    failed: bool = False

    async def hold(self, lines: Lines) -> None:
        paused: str | None = None
        while (line := await lines.next()) is not None:
            if line.strip().lower() in _LAST_WORDS:
                return
            if line.strip().lower() == "/context":
                await self._context()
                continue
            turn = await self._answer(replace(self.request, text=line, task_id=paused))
            if turn:  # a server may have made the session with the first message
                self.request = replace(self.request, session_id=turn.key.session_id)
            paused = turn.id if turn and turn.state.paused else None

    async def _context(self) -> None:
        if self.show_context is None:
            note("only where the server runs: hector sessions context SESSION --agent AGENT")
            return
        try:
            await self.show_context()
        except HectorError as error:
            complain(error)

    async def _answer(self, request: Request) -> Turn | None:
        """None if the turn was stopped, or its end is not known."""
        answering = asyncio.ensure_future(self.ask(request))
        with _on_interrupt(answering.cancel):
            # Not awaited itself: its cancellation is not ours.
            await asyncio.wait((answering,))
        await self.writer.end_line()
        if answering.cancelled():
            note("(stopped)")
            return None
        try:
            turn = answering.result()
        except HectorError as error:
            self.failed = True
            complain(error)
            return None
        if problem := failure(turn):
            self.failed = True
            complain(problem)
        return turn


async def _show_context(runtime: Runtime, output: Output, key: SessionKey) -> None:
    await output.write(f"{visible(context_text(await runtime.context(key)))}\n")


def _nothing(handle: TurnHandle) -> None:
    """The session was told of when the chat began."""


@contextmanager
def _on_interrupt(stop: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C does that, and does not end the process."""
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
