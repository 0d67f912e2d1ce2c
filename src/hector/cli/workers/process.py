"""One start of a worker, as the process that started it sees it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from hector.cli.workers.messages import Assignment, Report, decode_report, encode_assignment

_LONGEST_LINE = 2**24
_LAST_WORDS = 1.0
"""Seconds for what a worker said before it ended."""

LEFT_TO_THE_SUPERVISOR = frozenset({signal.SIGINT, signal.SIGHUP})
"""Signals that a terminal sends to all of its processes."""


class WorkerProcess:
    """Ends by itself when the process that started it ends, however that ends: their socket closes."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process, self._reader, self._writer = process, reader, writer

    @classmethod
    async def start(cls, assignment: Assignment) -> "WorkerProcess":
        """Raises `OSError`; not to be called again before it has returned."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, _held_back():
                # A fresh interpreter: a fork would take over an event loop that runs, and locks of threads
                # that it has not got.
                process = await asyncio.create_subprocess_exec(
                    *_command(theirs.fileno()),
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(), assignment.counts, *assignment.sockets),
                )
        except BaseException:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        # Not as arguments, which others can see: there may be secrets in a configuration.
        writer.write(encode_assignment(assignment))
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self, heard: Callable[[Report], None]) -> int:
        """Its exit status, negative for a signal; calls `heard` with whatever it reports until then."""
        listening = asyncio.create_task(self._listen(heard))
        try:
            status = await self._process.wait()
            # What it forked may hold the other end of the socket for longer.
            await asyncio.wait((listening,), timeout=_LAST_WORDS)
        finally:
            listening.cancel()
            self._writer.close()
        return status

    async def _listen(self, heard: Callable[[Report], None]) -> None:
        async for report in self._reports():
            heard(report)

    async def _reports(self) -> AsyncIterator[Report]:
        with contextlib.suppress(ConnectionError):
            async for line in self._reader:
                yield decode_report(line)


def _command(descriptor: int) -> list[str]:
    # What lies in the working folder must not be taken for a library, unless this process does so itself.
    here = os.fspath(Path.cwd())
    safe = [] if here in sys.path or "" in sys.path else ["-P"]
    return [sys.executable, *safe, "-m", "hector.cli.workers.child", str(descriptor)]


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """A child inherits what is blocked: so a Ctrl-C finds it blocked there until it is seen to.

    Here it is only late. Ignored signals are inherited, too, but one that comes here meanwhile would be lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_SUPERVISOR)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
