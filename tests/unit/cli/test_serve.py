"""What `hector serve` makes of its options and its file, and what it announces."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hector.cli.serving import ready_lines
from hector.cli.settings import Options, Source, with_options
from hector.config import Config
from hector.domain.errors import ConfigError, InvalidError

CONFIG = Config.model_validate(
    {"agents": {"a": {"llm": "x"}}, "server": {"host": "::1", "port": 7000}, "logging": {"level": "error"}}
)


def test_options_stand_in_place_of_what_the_file_says() -> None:
    config = with_options(CONFIG, Options("0.0.0.0", 0, 3, "debug"))
    server = config.server
    assert (server.host, server.port, server.workers, config.logging.level) == ("0.0.0.0", 0, 3, "debug")


def test_without_options_the_file_counts() -> None:
    assert with_options(CONFIG, Options()) == CONFIG


def test_a_host_is_looked_at_as_in_the_file() -> None:
    with pytest.raises(InvalidError, match="--host: wanted a host name or an IP address"):
        with_options(CONFIG, Options(host="http://x"))


def test_one_line_says_ready_and_the_others_are_for_people() -> None:
    base_url, url = "https://agents.example.org", "http://127.0.0.1:8091"
    assert ready_lines(base_url, url, "127.0.0.1:8090", ["a", "long"]) == [
        f"ready: http://127.0.0.1:8091  grpc: 127.0.0.1:8090  agents: a, long  (pid {os.getpid()})",
        "  a     https://agents.example.org/v1/agents/a",
        "  long  https://agents.example.org/v1/agents/long",
    ]


def test_several_workers_are_announced() -> None:
    line, _ = ready_lines("http://x", "http://127.0.0.1:8091", "127.0.0.1:8090", ["a"], workers=4)
    ports = "http://127.0.0.1:8091  grpc: 127.0.0.1:8090"
    assert line == f"ready: {ports}  agents: a  workers: 4  (pid {os.getpid()})"


# --- workers, and what they need

AGENTS = """\
session_stores:
  kept: {backend: sql, sql: {driver: sqlite, database: ./x.db}}
  lost: {backend: memory}
llms: {m: {type: scripted}}
agents:
  kept: {llm: m, session_store: kept}
  lost: {llm: m, session_store: lost}
  mute:
    llm: m
server: {workers: 2}
"""


def told(text: str, workers: int | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        Source("c.yaml", text, Options(workers=workers)).settings()
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize("option", [None, 7])
def test_sessions_in_memory_and_several_workers_do_not_go_together(option: int | None) -> None:
    text = (
        f"the agent keeps its sessions in memory, so each of {option or 2} workers would have its own;"
        " wanted a session store with backend: sql, or one worker (server.workers, --workers)"
    )
    assert told(AGENTS, option) == [
        f"c.yaml:7: agents.lost.session_store: {text}",
        f"c.yaml:8: agents.mute.session_store: {text}",
    ]


def test_one_process_may_keep_them_in_memory() -> None:
    assert Source("c.yaml", AGENTS, Options(workers=1)).settings().server.workers == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "wanted at least 1, found 0"),
        ("257", "wanted at most 256, found 257"),
        ("true", "wanted a number, found true"),
        ("many", "wanted a whole number, found 'many'"),
    ],
)
def test_a_number_of_workers_that_is_none(value: str, text: str) -> None:
    file = f"agents: {{a: {{llm: gpt-4o}}}}\nllms: {{}}\nserver: {{workers: {value}}}\n"
    assert f"c.yaml:3: server.workers: {text}" in told(file)


def test_all_faults_are_told_at_once_with_workers_too() -> None:
    agents = "llms: {m: {type: scripted}}\nagents: {a: {llm: m, tools: ['none:such']}}\n"
    file = f"server: {{workers: 2}}\nlogging: {{levle: info}}\n{agents}"
    shape, memory, tool = told(file)
    assert "logging.levle: unknown key" in shape
    assert "agents.a.session_store: the agent keeps its sessions in memory" in memory
    assert "agents.a.tools[0]" in tool


def test_workers_look_at_what_whoever_starts_them_does_not() -> None:
    file = AGENTS.replace("llm: m,", "llm: nope,").replace("session_store: lost", "session_store: kept")
    source = Source("c.yaml", file.replace("  mute:\n    llm: m\n", ""), Options())
    assert source.settings().server.workers == 2
    with pytest.raises(ConfigError, match=r"agents\.kept\.llm"):
        source.checked_settings()


def test_a_file_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(AGENTS)
    source = Source.named(file, Options(workers=1))
    file.write_text("agents: []")
    assert list(source.settings().agents) == ["kept", "lost", "mute"]


def test_whoever_starts_workers_imports_nothing_heavy() -> None:
    heavy = ("a2a", "openai", "pydantic_ai", "sqlalchemy", "starlette", "uvicorn", "uvloop", "hector.runtime")
    code = (
        "import sys, hector.cli.main, hector.cli.workers.supervisor;"
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
