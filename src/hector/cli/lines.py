"""Lines of a conversation: typed at a terminal, or read from a pipe or file."""

import asyncio
import codecs
import os
import sys
import threading
from contextlib import suppress
from typing import Protocol

from hector.cli.output import note


class Lines(Protocol):
    async def next(self) -> str | None:
        """The next line that says something, without its end; None after the last."""
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
        self._arrived: asyncio.Queue[str | None] = asyncio.Queue()
        # A thread of our own that nobody waits for: a blocked read can be neither cancelled nor joined, and
        # an event loop cannot wait for a file.
        threading.Thread(target=self._read, daemon=True).start()

    async def next(self) -> str | None:
        while (line := await self._arrived.get()) is not None:
            if line.strip():
                return line
        return None

    def _read(self) -> None:
        # By the descriptor: a thread that is blocked in `sys.stdin` holds a lock that the interpreter wants
        # at its end.
        descriptor = sys.stdin.fileno()
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        while chunk := os.read(descriptor, 65536):
            *lines, rest = (rest + decoder.decode(chunk)).split("\n")
            for line in lines:
                self._arrive(line)
        if rest := rest + decoder.decode(b"", final=True):
            self._arrive(rest)
        self._arrive(None)

    def _arrive(self, line: str | None) -> None:
        # The chat may have ended before its input.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, line)
