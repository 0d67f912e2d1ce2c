"""`hector serve`: agents over HTTP, until somebody stops it."""

import asyncio
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from setproctitle import setproctitle, setthreadtitle

from hector.cli.logs import set_up_logging
from hector.cli.output import close_output, complain
from hector.config.model import Config, ServerSection
from hector.config.values import BindHost
from hector.domain.errors import ConfigError, InvalidError
from hector.runtime.build import open_runtime
from hector.server.serve import HttpServer, serve

logger = logging.getLogger(__name__)

NAME = "hector"


def with_options(
    config: Config,
    *,
    host: str | None,
    port: int | None,
    log_level: Literal["debug", "info", "warning", "error"] | None,
) -> Config:
    """The configuration with what the command line says in place of it. Raises `InvalidError`."""
    if host is not None:
        try:
            TypeAdapter(BindHost).validate_python(host)
        except ValidationError as error:
            raise InvalidError("--host", str(error.errors()[0]["ctx"]["error"])) from None
    server = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    logs = {} if log_level is None else {"level": log_level}
    return config.model_copy(
        update={
            "server": config.server.model_copy(update=server),
            "logging": config.logging.model_copy(update=logs),
        }
    )


async def serve_until_stopped(config: Config) -> int:
    """The exit status. Raises `StorageError`."""
    _name_process()
    set_up_logging(config.logging.level, config.logging.format)
    stop = asyncio.Event()
    _stop_on_signals(stop)

    def ready(http: HttpServer) -> None:
        _warn_of_strangers(http, config.server)
        _announce(ready_lines(config.server.base_url or http.url, http.url, tuple(config.agents)))
        logger.info("serving %s", http.url)

    try:
        await serve(
            lambda patience: open_runtime(config, patience=patience), config.server, stop=stop, ready=ready
        )
    except ConfigError as error:
        # The address is taken or not there: the configuration may be as right as ever.
        for problem in error.problems:
            complain(str(problem))
        return 1
    logger.info("stopped")
    return 0


def ready_lines(base_url: str, url: str, agents: Sequence[str]) -> list[str]:
    """One line that begins with `ready`, for scripts, and a table for people."""
    width = max(map(len, agents))
    return [
        f"ready: {url}  agents: {', '.join(agents)}  (pid {os.getpid()})",
        *(f"  {agent:{width}}  {base_url}/v1/agents/{agent}" for agent in agents),
    ]


def _announce(lines: Sequence[str]) -> None:
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        # Whoever started it waited for the first line and left.
        close_output()


def _name_process() -> None:
    """`pkill hector` finds it, also where it was started as `python -m hector`."""
    setproctitle(shlex.join([NAME, *sys.argv[1:]]))
    # On Linux the title's first 15 bytes became the name that `pkill` and `pgrep -x` compare.
    setthreadtitle(NAME)


def _warn_of_strangers(http: HttpServer, server: ServerSection) -> None:
    if not http.loopback and not server.auth.tokens:
        logger.warning(
            "everybody who reaches %s port %d may talk to these agents, as nobody signs in here;"
            " set server.auth.tokens, or listen on 127.0.0.1",
            http.host,
            http.port,
        )


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if stop.is_set() and number == signal.SIGINT:
            # Nothing that was acknowledged is lost, as nothing is when the power fails.
            os._exit(128 + number)
        logger.info("%s: stopping", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A shell has a background job ignore Ctrl-C, and nohup has it ignore the end of the terminal.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, told, number)
