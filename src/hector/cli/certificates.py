"""Files for TLS that cannot work, seen without a connection."""

from collections.abc import Iterator

from hector.config.model import Config, SqlStoreSection
from hector.config.sql import MySqlSection, PostgresSection
from hector.domain.errors import ConfigError, Problem, StoreOpenError
from hector.runtime.stores import server_settings
from hector.server.tls import server_context
from hector.storage.server.connecting import uses_tls
from hector.storage.server.tls import context
from hector.storage.settings import Tls


def certificate_problems(config: Config) -> Iterator[Problem]:
    """A check for `config.load`."""
    if config.server.tls:
        try:
            server_context(config.server.tls)
        except ConfigError as error:
            yield from (config.problem(problem.path, problem.text) for problem in error.problems)
    for name, store in config.session_stores.items():
        match store:
            case SqlStoreSection(sql=PostgresSection() | MySqlSection() as sql):
                settings = server_settings(name, store, sql)
                if uses_tls(settings):
                    yield from _problems(config, name, settings.tls)
            case _:
                pass


def _problems(config: Config, store: str, tls: Tls) -> Iterator[Problem]:
    # One by one, so that all are told: whom the server must be signed by, and what Hector shows.
    for part in (Tls("require", root_cert=tls.root_cert), Tls("require", tls.cert, tls.key)):
        try:
            context(part, store)
        except StoreOpenError as error:
            why = str(error).removeprefix(str(StoreOpenError(store, "")))
            key, _, text = why.partition(": ")
            yield config.problem(f"session_stores.{store}.sql.{key}", text)
