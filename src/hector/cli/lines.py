"""Lines of a conversation: typed at a terminal, or read from a pipe or file."""

import asyncio
import os
import sys
import threading
from contextlib import suppress
from typing import Protocol

from hector.cli.output import note
from hector.domain.errors import InvalidError


class Lines(Protocol):
    async def next(self) -> str | None:
        """The next line that says something, without its end; None after the last. Raises `InvalidError`."""
        ...


class TypedLines:
    """At a prompt, with editing and the history of this conversation."""

    def __init__(self) -> None:
        # 0.2 s of imports, which only who types has to wait for.
        from prompt_toolkit import PromptSession  # noqa: PLC0415

        self._prompt: PromptSession[str] = PromptSession("you> ")

    async def next(self) -> str | None:
        """Ctrl-D ends the conversation, and so does Ctrl-C pressed twice; once, it clears the line."""
        interrupted = False
        while True:
            try:
                line = await self._prompt.prompt_async()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if interrupted:
                    return None
                interrupted = True
                note("(Ctrl-C again, Ctrl-D or `exit` ends the chat)")
                continue
            interrupted = False
            if line.strip():
                return line


class PipedLines:
    """From standard input as it is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[str | InvalidError | None] = asyncio.Queue()
        # A thread of our own that nobody waits for: a blocked read can be neither cancelled nor joined, and
        # an event loop cannot wait for a file.
        threading.Thread(target=self._read, daemon=True).start()

    async def next(self) -> str | None:
        while (line := await self._arrived.get()) is not None:
            if isinstance(line, InvalidError):
                raise line
            if line.strip():
                return line
        return None

    def _read(self) -> None:
        # By the descriptor: a thread that is blocked in `sys.stdin` holds a lock that the interpreter wants
        # at its end.
        descriptor = sys.stdin.fileno()
        rest, before = b"", 0
        try:
            while chunk := os.read(descriptor, 65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._arrive(line.decode())
                    before += len(line) + 1
            self._arrive(rest.decode())
        except UnicodeDecodeError as error:
            self._arrive(InvalidError("standard input", f"is not UTF-8 at byte {before + error.start}"))
        self._arrive(None)

    def _arrive(self, line: str | InvalidError | None) -> None:
        # The chat may have ended before its input.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, line)
