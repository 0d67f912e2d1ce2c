"""What `hector serve` makes of its options, and what it announces."""

import os

import pytest

from hector.cli.serve import ready_lines, with_options
from hector.config import Config
from hector.domain.errors import InvalidError

CONFIG = Config.model_validate(
    {"agents": {"a": {"llm": "x"}}, "server": {"host": "::1", "port": 7000}, "logging": {"level": "error"}}
)


def test_options_stand_in_place_of_what_the_file_says() -> None:
    config = with_options(CONFIG, host="0.0.0.0", port=0, log_level="debug")
    assert (config.server.host, config.server.port, config.logging.level) == ("0.0.0.0", 0, "debug")


def test_without_options_the_file_counts() -> None:
    assert with_options(CONFIG, host=None, port=None, log_level=None) == CONFIG


def test_a_host_is_looked_at_as_in_the_file() -> None:
    with pytest.raises(InvalidError, match="--host: wanted a host name or an IP address"):
        with_options(CONFIG, host="http://x", port=None, log_level=None)


def test_one_line_says_ready_and_the_others_are_for_people() -> None:
    assert ready_lines("https://agents.example.org", "http://127.0.0.1:8091", ["a", "long"]) == [
        f"ready: http://127.0.0.1:8091  agents: a, long  (pid {os.getpid()})",
        "  a     https://agents.example.org/v1/agents/a",
        "  long  https://agents.example.org/v1/agents/long",
    ]
