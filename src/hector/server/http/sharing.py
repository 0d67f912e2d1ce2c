"""Several processes on one listening socket: each connection goes to the one that holds the fewest.

The kernel wakes all that wait on a socket, and gives a connection to the first that accepts. Left to
themselves, event loops accept all that is there: of 128 clients that kept their connections, four processes
got 104, 19, 3 and 2. Here they got 33, 32, 32 and 31, and answered 1.7 times as many requests. A socket for
each process (SO_REUSEPORT) spreads as well, but on Linux alone; and what the kernel has queued for a process
that died or hangs waits for that one, though others are idle.
"""

import asyncio
import logging
import mmap
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterable
from typing import TypeAlias

logger = logging.getLogger(__name__)

Protocols: TypeAlias = Callable[[], asyncio.Protocol]

_ABSENT = 2**32 - 1
"""The count of a process that accepts nothing."""
_WIDTH = 4
_COURTESY = 0.001
"""Seconds for which others may take a connection first; afterwards it is taken, should they all hang."""
_HANDSHAKE = 20.0
"""Seconds for TLS."""
_EXHAUSTED_PAUSE = 1.0
"""Seconds without accepting when there is no descriptor left."""


class Counts:
    """How many connections each process holds, in memory that they share. Each writes its own alone."""

    def __init__(self, file: int, processes: int) -> None:
        """`file` is of `new_file`, and stays the caller's."""
        self._shared = memoryview(mmap.mmap(file, processes * _WIDTH)).cast("I")

    @staticmethod
    def new_file(processes: int) -> int:
        """A descriptor for children to inherit; nobody accepts yet."""
        if hasattr(os, "memfd_create"):
            # It needs no folder that can be written to.
            file = os.memfd_create("hector-connections")
        else:
            with tempfile.TemporaryFile() as temporary:
                file = os.dup(temporary.fileno())
        os.write(file, _ABSENT.to_bytes(_WIDTH, "little") * processes)
        return file

    def __getitem__(self, process: int) -> int | None:
        """None: it accepts nothing."""
        count = self._shared[process]
        return None if count == _ABSENT else count

    def __setitem__(self, process: int, count: int | None) -> None:
        self._shared[process] = _ABSENT if count is None else count

    def anybody(self) -> bool:
        """Somebody accepts."""
        return min(self._shared) != _ABSENT

    def least(self) -> int:
        """Of those who accept."""
        return min(self._shared)


class Share:
    """One process's part of the connections."""

    def __init__(self, counts: Counts, process: int) -> None:
        self._counts, self._process = counts, process
        self._held = 0
        self._accepts = False

    @property
    def is_fair(self) -> bool:
        """Nobody else holds fewer."""
        return self._held <= self._counts.least()

    def begin(self) -> None:
        self._accepts = True
        self._tell()

    def end(self) -> None:
        self._accepts = False
        self._tell()

    def add(self, connections: int) -> None:
        self._held += connections
        self._tell()

    def _tell(self) -> None:
        self._counts[self._process] = self._held if self._accepts else None


class Acceptor:
    """Takes connections from one socket, as an `asyncio.Server` does, and its share of them.

    `protocols` makes one for each, which counts itself into the share as long as it is connected.
    """

    def __init__(
        self, listener: socket.socket, share: Share, protocols: Protocols, tls: ssl.SSLContext | None = None
    ) -> None:
        self._listener, self._share, self._protocols, self._tls = listener, share, protocols, tls
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._begun = self._closed = False
        self._connecting: set[asyncio.Task[None]] = set()
        listener.setblocking(False)

    def begin(self) -> None:
        """Accept from now on; once is enough."""
        if not self._begun and not self._closed:
            self._begun = True
            self._share.begin()
            self._watch()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._share.end()
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Until all that was accepted has its protocol; nobody waits for who has not greeted yet."""
        if self._tls:
            for task in self._connecting:
                task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _watch(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._readable)

    def _readable(self) -> None:
        if self._share.is_fair:
            self._accept()
        else:
            self._later(_COURTESY, self._after_courtesy)

    def _after_courtesy(self) -> None:
        self._watch()
        self._accept()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, action)

    def _accept(self) -> None:
        """One alone: by the next, others may hold fewer."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # somebody else took it, or it went away
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            logger.warning("cannot accept a connection (%s); trying again", why)
            self._later(_EXHAUSTED_PAUSE, self._watch)
            return
        self._share.add(1)
        task = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(
                self._protocols,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE if self._tls else None,
            )
        except OSError:
            connection.close()  # its client has gone already, or speaks no TLS
        finally:
            self._share.add(-1)  # from here on its protocol counts


class SharedAccepting:
    """What a server needs to take its share of the connections."""

    def __init__(self, share: Share, *, at_once: bool) -> None:
        """`at_once`: before there is something to serve, since nobody else could tell what is waited for."""
        self.share, self.at_once = share, at_once
        self.acceptors: list[Acceptor] = []

    def add(
        self, listeners: Iterable[socket.socket], protocols: Protocols, tls: ssl.SSLContext | None = None
    ) -> None:
        self.acceptors += (Acceptor(listener, self.share, protocols, tls) for listener in listeners)
        if self.at_once:
            self.begin()

    def begin(self) -> None:
        for acceptor in self.acceptors:
            acceptor.begin()
