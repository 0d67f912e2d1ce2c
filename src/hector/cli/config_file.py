"""Which configuration a command uses."""

from pathlib import Path

from hector.config.load import Check, load
from hector.config.model import Config
from hector.config.suggest import did_you_mean
from hector.domain.errors import ConfigError, InvalidError, Problem

DEFAULT_FILES = ("config.yaml", "hector.yaml")


def config_path(named: Path | None) -> Path:
    """The named file, else the default that is in the current folder. Raises `ConfigError`."""
    if named is not None:
        return named
    for name in DEFAULT_FILES:
        if (path := Path(name)).exists():
            return path
    text = f"there is no {' or '.join(DEFAULT_FILES)} in this folder; name a file with --config"
    raise ConfigError([Problem("", text)])


def load_config(named: Path | None, *more: Check) -> Config:
    """Raises `ConfigError` with all that is wrong, missing keys and tools too."""
    # The runtime's imports are heavy, and whoever only starts workers does without them.
    from hector.cli.card_key import card_key_problems  # noqa: PLC0415
    from hector.cli.certificates import certificate_problems  # noqa: PLC0415
    from hector.runtime.build import check  # noqa: PLC0415

    return load(config_path(named), checks=[check(), certificate_problems, card_key_problems, *more])


def choose_agent(config: Config, name: str | None, field: str = "--agent") -> str:
    """The named agent, or the only one there is. Raises `InvalidError`."""
    agents = ", ".join(sorted(config.agents))
    if name is None:
        if len(config.agents) > 1:
            raise InvalidError(field, f"say which agent is meant (known: {agents})")
        return next(iter(config.agents))
    if name not in config.agents:
        raise InvalidError(
            field, f"no agent named {name!r}{did_you_mean(name, config.agents) or f' (known: {agents})'}"
        )
    return name


def keeps_sessions(config: Config, agent: str) -> bool:
    """The agent's sessions outlive this process."""
    store = config.agents[agent].session_store
    return store is not None and config.session_stores[store].backend != "memory"
