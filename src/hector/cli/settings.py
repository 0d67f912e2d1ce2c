"""What `hector serve` is told: by a file, and by the command line in place of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from hector.cli.config_file import config_path, keeps_sessions
from hector.config.load import loads, read
from hector.config.model import Config
from hector.config.values import BindHost
from hector.domain.errors import ConfigError, InvalidError, Problem

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Options:
    """None leaves it to the file."""

    host: str | None = None
    port: int | None = None
    workers: int | None = None
    log_level: LogLevel | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration, read once: it may come out of a pipe, or change while workers are started anew."""

    file: str
    text: str
    options: Options

    @classmethod
    def named(cls, path: Path | None, options: Options) -> "Source":
        """Raises `ConfigError`."""
        path = config_path(path)
        return cls(str(path), read(path, str(path)), options)

    def settings(self) -> Config:
        """For a server of so many workers.

        Without others it is checked as by `checked_settings`; with them that is left to each of them, who
        loads models' and agents' code anyway.
        Raises `ConfigError` with all that is wrong, and `InvalidError`.
        """
        try:
            return self._loaded(alone_only=True)
        except ConfigError:
            # Who has to mend it is told everything at once.
            self.checked_settings()
            raise

    def checked_settings(self) -> Config:
        """With a look at models, keys and tools. Raises `ConfigError` with all that is wrong."""
        return self._loaded(alone_only=False)

    def _loaded(self, *, alone_only: bool) -> Config:
        def problems(config: Config) -> Iterable[Problem]:
            workers = self.options.workers or config.server.workers
            yield from private_sessions(config, workers)
            if workers == 1 or not alone_only:
                # Heavy imports.
                from hector.cli.certificates import certificate_problems  # noqa: PLC0415
                from hector.runtime.build import check  # noqa: PLC0415

                yield from check()(config)
                yield from certificate_problems(config)

        return with_options(loads(self.text, file=self.file, checks=[problems]), self.options)


def with_options(config: Config, options: Options) -> Config:
    """The configuration with what the command line says in place of it. Raises `InvalidError`."""
    if options.host is not None:
        try:
            TypeAdapter(BindHost).validate_python(options.host)
        except ValidationError as error:
            raise InvalidError("--host", str(error.errors()[0]["ctx"]["error"])) from None
    said = {"host": options.host, "port": options.port, "workers": options.workers}
    server = {name: value for name, value in said.items() if value is not None}
    logs = {} if options.log_level is None else {"level": options.log_level}
    return config.model_copy(
        update={
            "server": config.server.model_copy(update=server),
            "logging": config.logging.model_copy(update=logs),
        }
    )


def private_sessions(config: Config, workers: int) -> Iterator[Problem]:
    """Agents whose sessions are in the memory of one process, where there are several."""
    for agent in config.agents:
        if workers > 1 and not keeps_sessions(config, agent):
            yield config.problem(
                f"agents.{agent}.session_store",
                f"the agent keeps its sessions in memory, so each of {workers} workers would have its own;"
                " wanted a session store with backend: sql, or one worker (server.workers, --workers)",
            )
