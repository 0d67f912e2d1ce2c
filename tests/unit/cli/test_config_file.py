"""Which file and which agent a command means."""

from pathlib import Path

import pytest

from hector.cli.config_file import choose_agent, config_path, keeps_sessions
from hector.config import Config
from hector.domain.errors import ConfigError, InvalidError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*agents: str, store: str | None = None) -> Config:
    return Config.model_validate(
        {
            "agents": {name: {"llm": "x", "session_store": store} for name in agents},
            "session_stores": {
                "disk": {"backend": "sql", "sql": {"driver": "sqlite", "database": "s.db"}},
                "ram": {"backend": "memory"},
            },
        }
    )


def test_a_named_file_is_taken_whatever_lies_there(folder: Path) -> None:
    (folder / "config.yaml").touch()
    assert config_path(Path("other.yaml")) == Path("other.yaml")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["config.yaml"], "config.yaml"),
        (["hector.yaml"], "hector.yaml"),
        (["hector.yaml", "config.yaml"], "config.yaml"),
    ],
)
def test_without_a_name_it_is_the_default_that_is_there(folder: Path, files: list[str], chosen: str) -> None:
    for file in files:
        (folder / file).touch()
    assert config_path(None) == Path(chosen)


def test_where_there_is_no_default_the_names_that_would_do_are_told(folder: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        config_path(None)
    assert str(raised.value) == (
        "there is no config.yaml or hector.yaml in this folder; name a file with --config"
    )


def test_an_only_agent_needs_no_name() -> None:
    assert choose_agent(config("one"), None) == "one"


@pytest.mark.parametrize(
    ("agents", "name", "told"),
    [
        (("a", "b"), None, "--agent: say which agent is meant (known: a, b)"),
        (("a", "b"), "zebra", "--agent: no agent named 'zebra' (known: a, b)"),
        (("assistant",), "asistant", "--agent: no agent named 'asistant' (did you mean 'assistant'?)"),
    ],
)
def test_an_agent_that_is_not_clear_is_refused(agents: tuple[str, ...], name: str | None, told: str) -> None:
    with pytest.raises(InvalidError) as raised:
        choose_agent(config(*agents), name)
    assert str(raised.value) == told


@pytest.mark.parametrize(("store", "kept"), [(None, False), ("ram", False), ("disk", True)])
def test_only_a_database_keeps_sessions(store: str | None, kept: bool) -> None:
    assert keeps_sessions(config("a", store=store), "a") is kept
