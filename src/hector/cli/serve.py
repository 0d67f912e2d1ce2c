"""`hector serve`: agents over HTTP in this process, until somebody stops it."""

import asyncio
import logging

from hector.cli.logs import set_up_logging
from hector.cli.output import complain
from hector.cli.serving import announce, name_process, ready_lines, stop_on_signals, warn_of_strangers
from hector.config.model import Config
from hector.domain.errors import ConfigError
from hector.runtime.build import open_runtime
from hector.server.serve import Server, serve

logger = logging.getLogger(__name__)


async def serve_until_stopped(config: Config) -> int:
    """The exit status. Raises `StorageError`."""
    name_process()
    set_up_logging(config.logging.level, config.logging.format)
    stop = asyncio.Event()
    stop_on_signals(stop)

    def ready(server: Server) -> None:
        warn_of_strangers(config.server, server.port, loopback=server.loopback)
        base_url = config.server.base_url or server.url
        announce(ready_lines(base_url, server.url, server.grpc_address, tuple(config.agents)))
        logger.info("serving %s and gRPC on %s", server.url, server.grpc_address)

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
