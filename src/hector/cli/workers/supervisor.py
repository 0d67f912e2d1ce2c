"""The process that holds the sockets, and starts workers, once and again; it serves nothing itself."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hector.cli.logs import set_up_logging
from hector.cli.output import complain, note
from hector.cli.serving import announce, name_process, ready_lines, stop_on_signals, warn_of_strangers
from hector.cli.settings import Source
from hector.cli.workers.messages import Assignment, Failed, Ready, Report
from hector.cli.workers.process import WorkerProcess
from hector.cli.workers.restarts import Again, End, GiveUp, after
from hector.config.model import Config, ServerSection
from hector.domain.errors import ConfigError
from hector.server.http.sharing import Counts
from hector.server.listening import (
    address_of,
    free_port,
    listen,
    only_loopback,
    port_of,
    reserve,
    unless,
    url_of,
)

logger = logging.getLogger(__name__)

_MARGIN = 15.0
"""Seconds beyond `drain_timeout` after which a worker that was told to end is killed."""


async def serve_with_workers(source: Source, config: Config) -> int:
    """The exit status."""
    name_process()
    set_up_logging(config.logging.level, config.logging.format)
    running: dict[int, WorkerProcess] = {}
    stop = asyncio.Event()
    stop_on_signals(stop, before_exit=lambda: _kill(running))
    stopped = asyncio.create_task(stop.wait())
    server = config.server
    status = 0
    try:
        held = await unless(stopped, _hold(server))
        if held is not None:
            supervisor = Supervisor(
                source, held, running, workers=server.workers, ready=lambda: _tell_ready(config, held)
            )
            status = await supervisor.run(stopped, patience=server.drain_timeout + _MARGIN)
    except ConfigError as error:
        # As without workers: the address is taken or not there.
        for problem in error.problems:
            complain(str(problem))
        return 1
    finally:
        stopped.cancel()
    logger.info("stopped")
    return status


@dataclass(frozen=True, slots=True)
class Held:
    """The sockets of both ports: HTTP's listen, gRPC's keep its port for the workers' own."""

    http: Sequence[socket.socket]
    grpc: Sequence[socket.socket]

    def close(self) -> None:
        for each in (*self.http, *self.grpc):
            each.close()


async def _hold(server: ServerSection) -> Held:
    http = await listen(server.host, server.port and server.port + 1, patience=server.drain_timeout)
    try:
        if server.port:
            await free_port(server.host, server.port, patience=server.drain_timeout)
        return Held(http, reserve(server.host, server.port))
    except BaseException:
        for each in http:
            each.close()
        raise


def _tell_ready(config: Config, held: Held) -> None:
    server = config.server
    port = port_of(held.http)
    tls = server.tls is not None
    url, grpc = url_of(server.host, port, tls=tls), address_of(server.host, port_of(held.grpc))
    warn_of_strangers(server, port, loopback=only_loopback(held.http))
    announce(ready_lines(server.base_url or url, url, grpc, tuple(config.agents), workers=server.workers))
    logger.info("serving %s and gRPC on %s with %d workers", url, grpc, server.workers)


def _kill(running: dict[int, WorkerProcess]) -> None:
    for process in running.values():
        process.kill()


class Supervisor:
    """Keeps so many workers running, until it is told to stop or there is no use in going on."""

    def __init__(
        self,
        source: Source,
        held: Held,
        running: dict[int, WorkerProcess],
        *,
        workers: int,
        ready: Callable[[], None],
    ) -> None:
        """`running`, by number, is kept up to date; what is held is closed by `run`.

        `ready` is called when all workers serve for the first time.
        """
        self._source, self._held, self._running, self._workers = source, held, running, workers
        self._file = Counts.new_file(workers)
        self._counts = Counts(self._file, workers)
        self._ready = ready
        self._serving: set[int] = set()
        self._served = False
        """All have served at the same time once."""
        self._over = asyncio.Event()
        """No worker is started any more."""
        self._gave_up: GiveUp | None = None
        self._one_start = asyncio.Lock()

    async def run(self, stopped: asyncio.Future[Any], *, patience: float) -> int:
        """The exit status, when all workers have ended; they may take `patience` seconds for that."""
        keepers = [asyncio.create_task(self._keep(number)) for number in range(1, self._workers + 1)]
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait((stopped, over, *keepers), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._over.set()
            self._release()
        in_time = await self._end(keepers, patience)
        if not self._gave_up:
            return 0 if in_time else 1
        for line in self._gave_up.lines:
            note(line)
        return self._gave_up.status

    def _release(self) -> None:
        """Nothing new is taken from here on, for the workers close the sockets as soon as they are told."""
        self._held.close()
        os.close(self._file)

    async def _end(self, keepers: Sequence[asyncio.Task[None]], patience: float) -> bool:
        """False if a worker had to be killed."""
        for process in self._running.values():
            process.terminate()
        _, late = await asyncio.wait(keepers, timeout=patience)
        if late:
            numbers = ", ".join(map(str, sorted(self._running)))
            logger.error("killed what has not ended within %g s: worker %s", patience, numbers)
            _kill(self._running)
        await asyncio.gather(*keepers)
        return not late

    async def _keep(self, number: int) -> None:
        """Start a worker again and again, until all is over."""
        deaths = 0
        while not self._over.is_set():
            end = await self._run(number)
            self._serving.discard(number)
            self._counts[number - 1] = None
            if self._over.is_set():
                return
            match after(end, number, deaths, served=self._served):
                case GiveUp() as gave_up:
                    self._gave_up = gave_up
                    self._over.set()
                case Again(delay, deaths):
                    _tell_end(number, end, delay)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(delay):
                            await self._over.wait()

    async def _run(self, number: int) -> End:
        """One start of a worker, to its end."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with self._one_start:
                if self._over.is_set():
                    return End(0, 0.0)
                process = await WorkerProcess.start(self._assignment(number))
        except OSError as error:
            logger.error("worker %d cannot be started: %s", number, (error.strerror or str(error)).lower())  # noqa: TRY400 - the reason is whole
            return End(1, 0.0)
        self._running[number] = process
        if self._over.is_set():
            process.terminate()
        failure: Failed | None = None

        def heard(report: Report) -> None:
            nonlocal failure
            match report:
                case Ready():
                    self._serves(number, process.pid)
                case Failed():
                    failure = report

        try:
            status = await process.wait(heard)
        finally:
            del self._running[number]
        return End(status, clock() - began, failure)

    def _assignment(self, number: int) -> Assignment:
        sockets = tuple(each.fileno() for each in self._held.http)
        grpc = port_of(self._held.grpc)
        # One that is started anew takes no connection before it serves, if there are others who do.
        at_once = not self._counts.anybody()
        return Assignment(number, self._source, sockets, grpc, self._file, at_once=at_once)

    def _serves(self, number: int, pid: int) -> None:
        logger.info("worker %d serves (pid %d)", number, pid)
        self._serving.add(number)
        if len(self._serving) == self._workers and not self._served:
            self._served = True
            self._ready()


def _tell_end(number: int, end: End, delay: float) -> None:
    for line in end.failure.lines if end.failure else ():
        logger.error("worker %d: %s", number, line)
    when = f"in {delay:g} s" if delay else "now"
    logger.warning("worker %d %s; starting another %s", number, end, when)
