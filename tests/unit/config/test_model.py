"""What a sound configuration says."""

import json
from pathlib import Path

import pydantic
import pytest

from hector.config import (
    AgentSection,
    AgentTurnsSection,
    BufferWindowSection,
    Config,
    LocalSection,
    MemoryStoreSection,
    OpenAISection,
    SqlStoreSection,
    SummaryBufferSection,
    TurnsSection,
    loads,
)
from hector.config.values import parse_duration, parse_size
from hector.domain.turns import Recovery, TurnSettings

QUICK_START = """\
# config.yaml
session_stores:
  main-db:
    backend: sql
    sql:
      driver: sqlite
      database: ./data/sessions.db
      max_conns: 10
      max_idle: 2

agents:
  assistant:
    llm: "gpt-4o"
    session_store: "main-db"  # Reference the global store
    memory:
      working:
        strategy: "summary_buffer"
        budget: 4000
"""

IN_MEMORY = """\
agents:
  assistant:
    llm: "gpt-4o"
    memory:
      working:
        strategy: "summary_buffer"
"""

MIGRATED = """\
session_stores:
  main-db:
    backend: sql
    sql:
      driver: sqlite
      database: ./data/sessions.db

agents:
  assistant:
    llm: "gpt-4o"
    session_store: "main-db"
    memory:
      working:
        strategy: "summary_buffer"
"""


def test_a_quick_start_loads_as_it_is_written() -> None:
    config = loads(QUICK_START, environ={})
    store = config.session_stores["main-db"]
    assert isinstance(store, SqlStoreSection)
    assert store.sql.database == Path("data/sessions.db")
    assert (store.sql.max_conns, store.sql.max_idle, store.sql.synchronous) == (10, 2, "full")
    agent = config.agents["assistant"]
    assert (agent.llm, agent.session_store) == ("gpt-4o", "main-db")
    assert agent.memory.working == SummaryBufferSection(budget=4000)


@pytest.mark.parametrize(("text", "stores"), [(IN_MEMORY, 0), (MIGRATED, 1)])
def test_both_sides_of_the_migration_guide_load(text: str, stores: int) -> None:
    assert len(loads(text, environ={}).session_stores) == stores


def test_a_lifetime_of_connections_is_in_seconds() -> None:
    text = MIGRATED.replace("sessions.db", "sessions.db\n      conn_max_lifetime: 3600  # 1 hour")
    store = loads(text, environ={}).session_stores["main-db"]
    assert isinstance(store, SqlStoreSection)
    assert store.sql.conn_max_lifetime == 3600.0


def test_the_least_that_can_be_written_has_every_default() -> None:
    assert loads("agents: {a: {llm: gpt-4o}}", environ={}) == Config(agents={"a": AgentSection(llm="gpt-4o")})


def test_variants_are_chosen_by_their_key() -> None:
    text = """\
agents:
  a: {llm: big, memory: {working: {strategy: buffer_window}}}
  b: {llm: big, memory: {working: {budget: 3}}}
llms:
  big: {type: openai, model: gpt-4o, host: "http://localhost:11434/v1/", timeout: 2m}
  small: {type: local, model: ~/models/own.gguf}
session_stores:
  fleeting: {backend: memory}
logging: {level: WARNING}
"""
    config = loads(text, environ={})
    assert config.agents["a"].memory.working == BufferWindowSection(strategy="buffer_window", window_size=20)
    assert config.agents["b"].memory.working == SummaryBufferSection(budget=3)
    big, small = config.llms["big"], config.llms["small"]
    assert isinstance(big, OpenAISection)
    assert (big.host, big.timeout, big.api_key) == ("http://localhost:11434/v1", 120.0, None)
    assert isinstance(small, LocalSection)
    assert small.model == Path.home() / "models" / "own.gguf"
    assert config.session_stores["fleeting"] == MemoryStoreSection(backend="memory")
    assert config.logging.level == "warning"


def test_an_agent_takes_from_the_common_turns_what_it_does_not_say_itself() -> None:
    config = Config(
        agents={
            "own": AgentSection(
                llm="x", turns=AgentTurnsSection(on_busy="reject", max_wait=1, max_waiting=2)
            ),
            "common": AgentSection(llm="x"),
        },
        turns=TurnsSection(max_wait=7, max_steps=3),
    )
    assert config.turn_settings("own") == TurnSettings(
        on_busy="reject", max_wait=1, max_waiting=2, max_steps=3
    )
    assert config.turn_settings("common") == TurnSettings(max_wait=7, max_waiting=100, max_steps=3)


def test_the_defaults_of_turns_are_the_domains() -> None:
    assert Config(agents={"a": AgentSection(llm="x")}).turn_settings("a") == TurnSettings()


def test_turns_are_not_run_again_where_tools_have_side_effects_unless_that_is_asked_for() -> None:
    config = Config(
        agents={
            "common": AgentSection(llm="x"),
            "own": AgentSection(llm="x", turns=AgentTurnsSection(on_crash="resume", max_attempts=7)),
        }
    )
    assert config.turn_settings("common").recovery == Recovery("resume", 3)
    assert config.turn_settings("common", side_effects=True).recovery == Recovery("fail", 3)
    assert config.turn_settings("own", side_effects=True).recovery == Recovery("resume", 7)
    cautious = config.model_copy(update={"turns": TurnsSection(on_crash="fail")})
    assert cautious.turn_settings("common").recovery.on_crash == "fail"


def test_a_configuration_made_in_code_is_checked_too() -> None:
    with pytest.raises(
        pydantic.ValidationError, match=r"agents\.a\.session_store: no session store named 'm'"
    ):
        Config(agents={"a": AgentSection(llm="x", session_store="m")})


def test_a_configuration_made_in_code_was_written_nowhere() -> None:
    config = Config(agents={"a": AgentSection(llm="x")})
    assert config.where("agents.a.llm") == ("", None)
    assert str(config.problem("agents.a.llm", "is wrong")) == "agents.a.llm: is wrong"


def test_where_a_key_was_written_or_else_the_nearest_above_it() -> None:
    text = "agents:\n  v1.5:\n    llm: x\n    tools:\n      - a:b\n      - c:d\nserver:\n  port: 1\n"
    config = loads(text, file="c.yaml", environ={})
    places = {
        "agents.v1.5.llm": 3,
        "agents.v1.5.tools[1]": 6,
        "agents.v1.5.tools[7]": 4,
        "agents.v1.5.prompt": 2,
        "agents.v1.5": 2,
        "server.auth.tokens[0].user": 7,
        "logging.level": None,
        "": None,
    }
    assert {path: config.where(path)[1] for path in places} == places
    assert config.where("logging.level")[0] == "c.yaml"


def test_nothing_can_be_changed() -> None:
    config = Config(agents={"a": AgentSection(llm="x")})
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.server.port = 1


def test_what_is_shown_is_json_without_secrets() -> None:
    text = """\
agents: {a: {llm: m, session_store: s}}
llms: {m: {type: openai, model: x, api_key: hunter2}}
session_stores: {s: {backend: sql, sql: {driver: sqlite, database: x.db}}}
server: {auth: {tokens: [{token: hunter2-hunter2, user: bob}]}}
"""
    config = loads(text, environ={})
    shown = json.dumps(config.shown())
    assert "hunter2" not in shown + repr(config) + str(config)
    assert json.loads(shown)["session_stores"]["s"]["sql"]["database"] == "x.db"
    assert json.loads(shown)["llms"]["m"]["api_key"] == "**********"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.25, 0.25),
        ("90", 90.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        ("15m", 900.0),
        (" 5 s ", 5.0),
        ("500ms", 0.5),
        ("8784h", 366 * 24 * 3600.0),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        -1,
        True,
        None,
        "",
        "s",
        "5 d",
        "1h30m",
        "-5s",
        "5S",
        "1e3",
        "inf",
        float("nan"),
        1e300,
        10**400,
        "9999h",
        [1],
    ],
)
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match="wanted a number of seconds or a text like"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (512, 512),
        ("512", 512),
        ("3B", 3),
        ("512KB", 512_000),
        ("20 mb", 20_000_000),
        ("0.5MB", 500_000),
        ("1kib", 1024),
        ("1GiB", 2**30),
    ],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written",
    [-1, True, None, "", "MB", "20M", "0.3B", 1.5, "1e3", "-1MB", "9" * 400, 10**400, "2000000GiB", []],
)
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(ValueError, match="wanted a number of bytes or a text like"):
        parse_size(written)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0.0.0.0", "::1", "::", "localhost", "my-host.example.com", "x"]
)
def test_hosts_to_listen_on(host: str) -> None:
    config = loads(f"agents: {{a: {{llm: x}}}}\nserver: {{host: '{host}'}}", environ={})
    assert config.server.host == host
