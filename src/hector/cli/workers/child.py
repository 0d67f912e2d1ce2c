"""One worker: a replica like any other, on sockets that it inherits. Run as a module by `WorkerProcess`."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from typing import NoReturn

import uvloop

from hector.cli.failures import explained
from hector.cli.logs import set_up_logging
from hector.cli.serving import name_worker, run_and_leave
from hector.cli.workers.messages import Assignment, Failed, Ready, Report, decode_assignment, encode_report
from hector.cli.workers.process import LEFT_TO_THE_SUPERVISOR
from hector.config.model import Config
from hector.domain.errors import HectorError
from hector.runtime.build import open_runtime
from hector.server.http.sharing import Counts, Share, SharedAccepting
from hector.server.serve import Ports, serve_share

logger = logging.getLogger(__name__)


def main(descriptor: int) -> NoReturn:
    _leave_signals_to_the_supervisor()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    with socket.socket(fileno=descriptor) as supervisor:
        # The programs that tools start are not to inherit them.
        supervisor.set_inheritable(False)
        with supervisor.makefile("rb") as lines:
            line = lines.readline()
        if not line:
            sys.exit(1)  # it has ended in the meantime
        assignment = decode_assignment(line)
        name_worker(assignment.worker)
        try:
            config = assignment.source.checked_settings()
            set_up_logging(config.logging.level, config.logging.format, worker=assignment.worker)
            run_and_leave(_serve(config, assignment, supervisor), uvloop.new_event_loop)
        except HectorError as error:
            status, told = explained(error)
            supervisor.setblocking(True)
            _report(supervisor, Failed(status, tuple(told)))
            sys.exit(status)


async def _serve(config: Config, assignment: Assignment, supervisor: socket.socket) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    supervisor.setblocking(False)
    watching = asyncio.create_task(_stop_with(supervisor, stop))
    counts = Counts(assignment.counts, config.server.workers)
    os.close(assignment.counts)
    try:
        await serve_share(
            lambda patience: open_runtime(config, patience=patience),
            config.server,
            Ports(
                [_inherited(each) for each in assignment.sockets],
                assignment.grpc,
                SharedAccepting(Share(counts, assignment.worker - 1), at_once=assignment.at_once),
            ),
            stop=stop,
            ready=lambda _: _report(supervisor, Ready()),
        )
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return 0


async def _stop_with(supervisor: socket.socket, stop: asyncio.Event) -> None:
    """It says nothing more; its end is all there is to read."""
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_recv(supervisor, 1)
    logger.warning("the process that started this one has ended: stopping")
    stop.set()


def _report(supervisor: socket.socket, report: Report) -> None:
    # Who is gone is noticed elsewhere.
    with contextlib.suppress(ConnectionError):
        supervisor.sendall(encode_report(report))


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    return inherited


def _leave_signals_to_the_supervisor() -> None:
    """They came here blocked. A handler, for ignored ones would be ignored by all that tools start, too."""
    for number in LEFT_TO_THE_SUPERVISOR:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_THE_SUPERVISOR)


if __name__ == "__main__":
    main(int(sys.argv[1]))
