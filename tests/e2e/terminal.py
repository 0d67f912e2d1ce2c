"""A terminal with a person before it: what a command draws, and keys that are pressed."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[=>])")


@dataclass
class Terminal:
    process: Process
    keyboard: int
    _drawn: str = ""
    _seen: int = 0
    """Up to where `until` has looked."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def press(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    async def until(self, text: str) -> None:
        """Wait for a text after the one that was waited for last."""
        while (place := self._drawn.find(text, self._seen)) < 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(30):
                    await self._changed.wait()
            except TimeoutError:
                raise AssertionError(f"no {text!r} after {self._drawn!r}") from None
        self._seen = place + len(text)

    def read(self) -> None:
        with suppress(OSError):  # the other side is closed
            # Escapes may be cut in two; none of the texts that are waited for has any.
            self._drawn += _ESCAPES.sub("", os.read(self.keyboard, 65536).decode(errors="replace"))
            self._changed.set()


@asynccontextmanager
async def terminal(*command: str | Path, cwd: Path, env: Mapping[str, str]) -> AsyncIterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    # Without a reply to its question where the cursor is, prompt_toolkit warns; this terminal gives none.
    own = dict(env) | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=own, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal
    )
    os.close(theirs)
    shown = Terminal(process, ours)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, shown.read)
    try:
        yield shown
    finally:
        loop.remove_reader(ours)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(ours)
