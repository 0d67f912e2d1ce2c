"""What `hector serve` announces and heeds, be it one process or several."""

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from setproctitle import setproctitle, setthreadtitle

from hector.cli.output import close_output
from hector.config.model import ServerSection

logger = logging.getLogger(__name__)

NAME = "hector"


def ready_lines(base_url: str, url: str, grpc: str, agents: Sequence[str], *, workers: int = 1) -> list[str]:
    """One line that begins with `ready`, for scripts, and a table for people."""
    width = max(map(len, agents))
    several = f"  workers: {workers}" if workers > 1 else ""
    return [
        f"ready: {url}  grpc: {grpc}  agents: {', '.join(agents)}{several}  (pid {os.getpid()})",
        *(f"  {agent:{width}}  {base_url}/v1/agents/{agent}" for agent in agents),
    ]


def announce(lines: Sequence[str]) -> None:
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        # Whoever started it waited for the first line and left.
        close_output()


def name_process() -> None:
    """`pkill hector` finds it, also where it was started as `python -m hector`."""
    setproctitle(shlex.join([NAME, *sys.argv[1:]]))
    # On Linux the title's first 15 bytes became the name that `pkill` and `pgrep -x` compare.
    setthreadtitle(NAME)


def name_worker(number: int) -> None:
    """`pkill hector` finds it, too; `pgrep -x hector` finds the one process to which all belong."""
    setproctitle(f"{NAME}: worker {number}")
    setthreadtitle(f"{NAME}: worker")


def warn_of_strangers(server: ServerSection, port: int, *, loopback: bool) -> None:
    if not loopback and not server.auth.tokens:
        logger.warning(
            "everybody who reaches %s port %d may talk to these agents, as nobody signs in here;"
            " set server.auth.tokens, or listen on 127.0.0.1",
            server.host,
            port,
        )


def stop_on_signals(stop: asyncio.Event, *, before_exit: Callable[[], None] = lambda: None) -> None:
    """`before_exit` is called where a second Ctrl-C ends the process at once."""
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if stop.is_set() and number == signal.SIGINT:
            before_exit()
            # Nothing that was acknowledged is lost, as nothing is when the power fails.
            os._exit(128 + number)
        logger.info("%s: stopping", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A shell has a background job ignore Ctrl-C, and nohup has it ignore the end of the terminal.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, told, number)


def run_and_leave(
    serving: Coroutine[Any, Any, int], loop: Callable[[], asyncio.AbstractEventLoop]
) -> NoReturn:
    """Serve, and end the process with the status that comes of it; when it comes, all is closed.

    Threads that still import something are not waited for, and the interpreter is not torn down, which takes
    long on a busy machine; whoever stops a server gives it only so much time.
    """
    runner = asyncio.Runner(loop_factory=loop)
    try:
        status = runner.run(serving)
    except BaseException:
        runner.close()
        raise
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # Whoever read it may have left.
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
