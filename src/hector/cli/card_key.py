"""The key that signs agent cards, looked at before anything is started."""

from collections.abc import Iterator

from hector.config.model import Config
from hector.domain.errors import ConfigError, Problem


def card_key_problems(config: Config) -> Iterator[Problem]:
    """A check for `config.load`."""
    if config.server.card_key is None:
        return
    from hector.server.a2a.signing import open_signer  # noqa: PLC0415 - for who signs alone

    try:
        open_signer(config.server)
    except ConfigError as error:
        for problem in error.problems:
            yield config.problem(problem.path, problem.text)
