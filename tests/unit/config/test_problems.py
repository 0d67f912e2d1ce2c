"""What is told of a file whose YAML is fine and whose content is not."""

from collections.abc import Iterator, Mapping

import pytest

from hector.config import Config, loads
from hector.domain.errors import ConfigError, Problem

AGENT = "agents: {a: {llm: gpt-4o}}\n"


def told(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, file="c.yaml", environ=environ or {})
    return [str(problem) for problem in caught.value.problems]


def told_of(fragment: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Of a file with a sound agent and, from its second line on, the fragment."""
    return [problem.removeprefix("c.yaml:2: ") for problem in told(AGENT + fragment, environ)]


def test_all_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
sever: {}
server:
  port: 70000
  auth:
    tokens:
      - token: too-short-is-not-this
        user: bob
        admn: true
      - {user: ann}
turns: {on_busy: wat}
session_stores:
  main: {backend: sql, sql: {driver: sqlite, database: ./x.db, max_idle: 11}}
llms:
  fast: {type: openai, modle: gpt-4o}
agents:
  helper:
    llm: fast
    prompt: ${PROMPT}
    session_store: mian
"""
    assert told(text, {"PROMT": "x"}) == [
        "c.yaml:1: sever: unknown key (did you mean 'server'?)",
        "c.yaml:3: server.port: wanted at most 65534, found 70000",
        "c.yaml:8: server.auth.tokens[0].***: unknown key (did you mean 'admin'?)",
        "c.yaml:9: server.auth.tokens[1].token: is missing",
        "c.yaml:10: turns.on_busy: wanted wait or reject, found 'wat' (did you mean 'wait'?)",
        "c.yaml:12: session_stores.main.sql.max_idle: wanted at most max_conns, which is 10, found 11",
        "c.yaml:14: llms.fast.model: is missing",
        "c.yaml:14: llms.fast.modle: unknown key (did you mean 'model'?)",
        (
            "c.yaml:18: agents.helper.prompt: environment variable PROMPT is not set (did you mean 'PROMT'?);"
            " set it, or write ${PROMPT:-default} to do without"
        ),
        "c.yaml:19: agents.helper.session_store: no session store named 'mian' (did you mean 'main'?)",
    ]


@pytest.mark.parametrize(
    ("fragment", "problem"),
    [
        ("xyz: 1", "xyz: unknown key (known: agents, llms, session_stores, server, turns, logging)"),
        ("server: 8090", "server: wanted a mapping, found a number"),
        ("llms: [a]", "llms: wanted a mapping of names, found a list"),
        (
            "server: {default_agent: A1}",
            "server.default_agent: no agent named 'A1' (known: a)",
        ),
        (
            "server: {grpc_address: 'grpc://x:1'}",
            (
                "server.grpc_address: wanted host:port, like agents.example.com:443, or https://host:port,"
                " found 'grpc://x:1'"
            ),
        ),
        (
            "server: {grpc_address: 'x:70000'}",
            (
                "server.grpc_address: wanted host:port, like agents.example.com:443, or https://host:port,"
                " found 'x:70000'"
            ),
        ),
        ("server: {port: eighty}", "server.port: wanted a whole number, found 'eighty'"),
        ("server: {port: 80.5}", "server.port: wanted a whole number, found 80.5"),
        ("server: {port: true}", "server.port: wanted a number, found true"),
        ("server: {port: [1]}", "server.port: wanted a whole number, found a list"),
        ("server: {port: -1}", "server.port: wanted at least 0, found -1"),
        (
            "server: {host: 'http://x'}",
            (
                "server.host: wanted a host name or an IP address, without http://, brackets and port"
                " (see server.port), found 'http://x'"
            ),
        ),
        (
            "server: {base_url: example.com}",
            "server.base_url: wanted a URL like https://host:port/path, found 'example.com'",
        ),
        ("server: {auth: {tokens: {}}}", "server.auth.tokens: wanted a list, found a mapping"),
        (
            "server: {limits: {body: 20XB}}",
            "server.limits.body: wanted a number of bytes or a text like 512KB, 20MB, 1GiB, found '20XB'",
        ),
        ("server: {limits: {body: 2GiB}}", "server.limits.body: wanted 1KB to 1GiB, found '2GiB'"),
        ("server: {limits: {message: 0}}", "server.limits.message: wanted 1 byte to 256MB, found 0"),
        (
            "server: {drain_timeout: 5d}",
            (
                "server.drain_timeout: wanted a number of seconds or a text like 1h, 15m, 30s, 500ms,"
                " at most 366 days, found '5d'"
            ),
        ),
        ("turns: {lease_ttl: 499ms}", "turns.lease_ttl: wanted at least 0.5s, found '499ms'"),
        ("turns: {max_wait: 0}", "turns.max_wait: wanted more than 0s, found 0"),
        ("turns: {max_steps: 0}", "turns.max_steps: wanted at least 1, found 0"),
        (f"turns: {{max_steps: -{'9' * 400}}}", "turns.max_steps: wanted at least 1, found a number"),
        (f"server: {{port: {'x' * 400}}}", "server.port: wanted a whole number, found a text"),
        ("logging: {level: 3}", "logging.level: wanted debug, info, warning or error, found 3"),
        ("logging: {format: jsn}", "logging.format: wanted text or json, found 'jsn' (did you mean 'json'?)"),
        ("session_stores: {m: sql}", "session_stores.m: wanted a mapping, found a text"),
        ("session_stores: {m: }", "session_stores.m: wanted a mapping, found nothing"),
        ("session_stores: {m: {}}", "session_stores.m.backend: is missing; wanted sql or memory"),
        (
            "session_stores: {m: {backend: sqll}}",
            "session_stores.m.backend: wanted sql or memory, found 'sqll' (did you mean 'sql'?)",
        ),
        (
            "session_stores: {m: {backend: [sql]}}",
            "session_stores.m.backend: wanted sql or memory, found a list",
        ),
        ("session_stores: {m: {backend: sql}}", "session_stores.m.sql: is missing; wanted a mapping"),
        (
            "session_stores: {m: {backend: memory, sql: {}}}",
            (
                "session_stores.m.sql: is a key of backend: sql, and this is backend: memory,"
                " which has no other keys"
            ),
        ),
        (
            "session_stores: {m: {backend: sql, sql: {database: x.db}}}",
            "session_stores.m.sql.driver: is missing; wanted sqlite, postgres or mysql",
        ),
        (
            "llms: {m: {type: local, api_key: x}}",
            (
                "llms.m.api_key: is a key of type: openai, and this is type: local,"
                " which has model, threads, context_window, max_tokens, temperature"
            ),
        ),
        (
            "llms: {m: {type: anthropic, model: x}}",
            "llms.m.type: wanted openai, local or scripted, found 'anthropic'",
        ),
        ("llms: {m: {type: openai, model: ' '}}", "llms.m.model: wanted a text that is not empty, found ' '"),
        ("llms: {m: {type: openai, model: 4}}", "llms.m.model: wanted a text, found 4; write it in quotes"),
        (
            "llms: {m: {type: openai, model: x, temperature: .nan}}",
            "llms.m.temperature: wanted a number, found nan",
        ),
        ("llms: {'': {type: scripted}}", "llms.: wanted a text that is not empty"),
    ],
)
def test_each_fault_says_what_was_wanted_and_what_was_found(fragment: str, problem: str) -> None:
    assert told_of(fragment) == [problem]


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        ("{}", "agents.a.llm: is missing"),
        ("gpt-4o", "agents.a: wanted a mapping, found a text"),
        ("{llm: ''}", "agents.a.llm: wanted a text that is not empty, found ''"),
        (
            "{llm: x, session_store: main}",
            "agents.a.session_store: no session store named 'main' (session_stores has none)",
        ),
        ("{llm: x, tools: 'a:b'}", "agents.a.tools: wanted a list, found a text"),
        (
            "{llm: x, tools: ['a:b', a.b]}",
            "agents.a.tools[1]: wanted a Python function as module:function, found 'a.b'",
        ),
        (
            "{llm: x, turns: {lease_ttl: 5}}",
            (
                "agents.a.turns.lease_ttl: unknown key (known: on_busy, max_wait, max_waiting, max_steps,"
                " on_crash, max_attempts,"
                " event_retention)"
            ),
        ),
        (
            "{llm: x, memory: {working: {window_size: 5}}}",
            (
                "agents.a.memory.working.window_size: is a key of strategy: buffer_window,"
                " and this is strategy: summary_buffer, which has budget, threshold, target, summarizer"
            ),
        ),
        (
            "{llm: x, memory: {working: {strategy: buffer_window, budget: 5}}}",
            (
                "agents.a.memory.working.budget: is a key of strategy: summary_buffer,"
                " and this is strategy: buffer_window, which has window_size"
            ),
        ),
        (
            "{llm: x, memory: {working: {target: 0.8}}}",
            "agents.a.memory.working.target: is 0.8; wanted less than the threshold, which is 0.8",
        ),
        (
            "{llm: x, memory: {working: {threshold: 1.5}}}",
            "agents.a.memory.working.threshold: wanted at most 1, found 1.5",
        ),
        (
            "{llm: x, memory: {working: {target: 0}}}",
            "agents.a.memory.working.target: wanted more than 0, found 0",
        ),
        (
            "{llm: x, memory: {working: {strategy: buffer_widow}}}",
            (
                "agents.a.memory.working.strategy: wanted summary_buffer or buffer_window,"
                " found 'buffer_widow' (did you mean 'buffer_window'?)"
            ),
        ),
        (
            "{llm: x, memory: {working: summary_buffer}}",
            "agents.a.memory.working: wanted a mapping, found a text",
        ),
        (
            "{llm: x, skills: [{id: s, name: S, description: d, input_modes: [text]}]}",
            "agents.a.skills[0].input_modes[0]: wanted a media type like text/plain, found 'text'",
        ),
        (
            (
                "{llm: x, skills: [{id: s, name: S, description: d}], extended: {skills: [{id: s, name:"
                " S, description: d}]}}"
            ),
            "agents.a.extended.skills[0].id: is the same as skills[0].id; wanted another",
        ),
        (
            "{llm: x, extensions: [{uri: 'urn:x'}, {uri: 'urn:x'}]}",
            "agents.a.extensions[1].uri: is the same as extensions[0].uri; wanted another",
        ),
        (
            "{llm: x, extensions: [{uri: 'a,b'}]}",
            (
                "agents.a.extensions[0].uri: wanted a URI without commas, like https://host/extension/v1,"
                " found 'a,b'"
            ),
        ),
        (
            "{llm: x, extensions: [{uri: 'urn:x', params: {p: [.nan]}}]}",
            "agents.a.extensions[0].params: wanted finite numbers, found a mapping",
        ),
        (
            "{llm: x, extensions: [{uri: 'urn:x', params: {p: {q: 9007199254740992}}}]}",
            (
                "agents.a.extensions[0].params: wanted whole numbers up to 2^53 - 1; write larger ones as"
                " text, found a mapping"
            ),
        ),
        (
            "{llm: x, icon_url: icon.png}",
            "agents.a.icon_url: wanted a URL like https://host/path, found 'icon.png'",
        ),
    ],
)
def test_faults_of_agents(agent: str, problem: str) -> None:
    assert told(f"agents:\n  a: {agent}\n") == [f"c.yaml:2: {problem}"]


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com",
        "ftp://example.com",
        "http://",
        "http://:80",
        "http://example.com:0",
        "http://example.com:99999",
        "http://[::1",
        "http://exa mple.com",
        "http://example.com/\u00e4",
    ],
)
def test_what_is_no_url(url: str) -> None:
    assert told_of(f"server: {{base_url: {url!r}}}") == [
        f"server.base_url: wanted a URL like https://host:port/path, found {url!r}"
    ]


def test_an_unknown_key_is_told_even_with_nothing_after_it() -> None:
    assert told_of("servr:") == ["servr: unknown key (did you mean 'server'?)"]


@pytest.mark.parametrize("agents", ["agents:", "agents: {}", "turns: {}"])
def test_at_least_one_agent_is_wanted(agents: str) -> None:
    (problem,) = told(agents)
    assert "agents: " in problem


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a/b", "'a/b' is no agent name: 1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first"),
        ("health", "'health' is a part of Hector's URLs; choose another name"),
    ],
)
def test_a_name_that_no_agent_can_have(name: str, why: str) -> None:
    assert told(f"agents:\n  ok: {{llm: x}}\n  {name}: {{llm: x}}\n") == [f"c.yaml:3: agents.{name}: {why}"]


@pytest.mark.parametrize(
    ("database", "wanted"),
    [
        (
            "':memory:'",
            "wanted the path of a file; for sessions in memory use backend: memory, found ':memory:'",
        ),
        ("''", "wanted the path of a file; for sessions in memory use backend: memory, found ''"),
        ("'file:x.db?mode=ro'", "wanted the path of a file, not a URL, found 'file:x.db?mode=ro'"),
        ("'sqlite:///x.db'", "wanted the path of a file; a URL is written under dsn"),
        ("data/", "wanted the path of a file, found 'data/'"),
        (
            "~nobody-has-this-name/x",
            "wanted a path; the user after ~ is unknown, found '~nobody-has-this-name/x'",
        ),
        ("5", "wanted a path, found 5"),
    ],
)
def test_a_database_is_a_file(database: str, wanted: str) -> None:
    fragment = f"session_stores: {{m: {{backend: sql, sql: {{driver: sqlite, database: {database}}}}}}}"
    assert told_of(fragment) == [f"session_stores.m.sql.database: {wanted}"]


def test_two_connections_are_the_least() -> None:
    fragment = "session_stores: {m: {backend: sql, sql: {driver: sqlite, database: x.db, max_conns: 1}}}"
    assert told_of(fragment) == ["session_stores.m.sql.max_conns: wanted at least 2, found 1"]


@pytest.mark.parametrize(
    ("driver", "text"),
    [
        ("oracle", "wanted sqlite, postgres or mysql, found 'oracle'"),
        ("postgre", "wanted sqlite, postgres or mysql, found 'postgre' (did you mean 'postgres'?)"),
    ],
)
def test_an_unknown_driver_is_the_one_problem_of_its_section(driver: str, text: str) -> None:
    fragment = f"""\
session_stores:
  production-db:
    backend: sql
    sql:
      driver: {driver}
      host: postgres.example.com
      port: 5432
      user: hector
      password: ${{DB_PASSWORD}}
      database: hector_sessions
      ssl_mode: require
      max_conns: 50
      max_idle: 10
      conn_max_lifetime: 3600  # 1 hour
"""
    assert told(AGENT + fragment) == [f"c.yaml:6: session_stores.production-db.sql.driver: {text}"]


class TestValuesFromTheEnvironment:
    def test_numbers_and_booleans_are_read_from_text(self) -> None:
        config = loads(
            AGENT
            + "server: {port: '${PORT}', limits: {body: '${BODY}'}, drain_timeout: '${DRAIN:-90s}',"
            + " auth: {tokens: [{token: '${TOKEN}', user: bob, admin: '${ADMIN}'}]}}",
            environ={"PORT": "5432", "BODY": "1MB", "TOKEN": "x" * 8, "ADMIN": "true"},
        )
        server = config.server
        assert (server.port, server.limits.body, server.drain_timeout) == (5432, 1_000_000, 90.0)
        assert server.auth.tokens[0].admin is True

    def test_an_empty_value_counts_as_not_written(self) -> None:
        text = "agents: {a: {llm: '${LLM:-gpt-4o}', name: '${NAME:-}', session_store: '${STORE}'}}"
        agent = loads(text, environ={"STORE": ""}).agents["a"]
        assert (agent.llm, agent.name, agent.session_store) == ("gpt-4o", None, None)

    def test_an_empty_value_of_a_key_that_must_be_there_names_the_variable(self) -> None:
        assert told("agents: {a: {llm: '${LLM}'}}", {"LLM": ""}) == [
            "c.yaml:1: agents.a.llm: is empty, for ${LLM} is"
        ]
        assert told_of("llms: {m: {type: '${T:-}'}}") == [
            "llms.m.type: is empty, for ${T} is; wanted openai, local or scripted"
        ]

    def test_a_bad_value_is_not_shown_but_its_variable_is(self) -> None:
        assert told_of("server: {port: '${PORT}'}", {"PORT": "sk-oops"}) == [
            "server.port: wanted a whole number, found something else in ${PORT}"
        ]
        assert told_of("llms: {m: {type: '${T}'}}", {"T": "sk-oops"}) == [
            "llms.m.type: wanted openai, local or scripted, found something else in ${T}"
        ]

    @pytest.mark.parametrize(
        "fragment",
        [
            "server: {port: '${X}'}",
            "session_stores: {m: {backend: '${X}'}}",
            "session_stores: {m: {backend: sql, sql: {driver: '${X}', database: x.db}}}",
            "session_stores: {m: {backend: sql, sql: {driver: sqlite, database: '${X}'}}}",
            "llms: {m: {type: openai, model: '${X}', api_key: '${X}', host: '${X}'}}",
            "server: {auth: {tokens: [{token: '${X}', user: a}, {token: '${X}', user: '${X}'}]}}",
        ],
    )
    def test_an_unset_variable_is_told_and_nothing_that_follows_from_it(self, fragment: str) -> None:
        problems = told_of(fragment)
        assert len(problems) == fragment.count("${X}")
        assert all("environment variable X is not set" in problem for problem in problems)

    def test_an_unset_reference_is_not_a_dangling_one(self) -> None:
        (problem,) = told("agents: {a: {llm: x, session_store: '${X}'}}")
        assert "environment variable X is not set" in problem

    def test_a_dangling_reference_is_not_shown_either(self) -> None:
        assert told("agents: {a: {llm: x, session_store: '${X}'}}", {"X": "hunter2"}) == [
            "c.yaml:1: agents.a.session_store: no session store has the name in ${X}"
        ]

    def test_keys_are_not_substituted(self) -> None:
        assert told("agents: {'${X}': {llm: x}}", {"X": "a"})[0].startswith(
            "c.yaml:1: agents.${X}: '${X}' is no"
        )


class TestSecrets:
    @pytest.mark.parametrize(
        "fragment",
        [
            "server: {auth: {tokens: [{token: hunter2, user: bob}]}}",
            "server: {auth: {tokens: [{token: hunter2 hunter2, user: bob}]}}",
            "server: {auth: {tokens: [hunter2]}}",
            "server: {auth: {tokens: hunter2}}",
            "server: {auth: {tokens: {hunter2: bob}}}",
            "server: {auth: {tokens: {hunter2: {user: '${X}'}, hunter2: bob}}}",
            "server: {auth: {tokens: [{hunter2: bob}]}}",
            "server: {auth: {tokens: [{token: [hunter2], user: bob}]}}",
            "server: {auth: {tokens: [{token: hunter2-1, user: b}, {token: hunter2-1, user: c}]}}",
            "llms: {m: {type: openai, model: x, api_key: [hunter2]}}",
            "llms: {m: {type: openai, model: x, api_key: 'hunter2 '}}",
            "llms: {m: {type: openai, model: x, api_key: {a: hunter2}}}",
            "llms: {m: {type: openai, model: x, apikey: hunter2}}",
            "llms: {m: {type: openai, model: x, api_key: 'hunter2${'}}",
            "llms: {m: {type: openai, model: x, api_key: '${P}', timeout: '${P}'}}",
            "llms: {m: {type: openai, model: x, host: 'https://me:hunter2@example.com'}}",
            "llms: {m: {type: openai, model: x, host: 'https://me:hunter2@example.com:port'}}",
            "llms: {m: {type: openai, model: x, host: 'https://example.com?key=hunter2'}}",
            "llms: {m: {type: openai, model: x, host: 'https://example.com#hunter2'}}",
            "llms: {m: hunter2}",
            "llms: {m: {type: local, api_key: hunter2}}",
            "session_stores: {m: {backend: sql, sql: {driver: postgres, password: hunter2}}}",
            "session_stores: {m: {backend: sql, sql: {driver: sqlite, database: x, password: hunter2}}}",
        ],
    )
    def test_no_problem_shows_one(self, fragment: str) -> None:
        problems = told_of(fragment, {"P": "hunter2 "})
        assert problems
        assert "hunter2" not in "".join(problems)

    def test_a_number_as_a_key_is_not_shown_either(self) -> None:
        assert told_of("llms: {m: {type: openai, model: x, api_key: 31337}}") == [
            "llms.m.api_key: wanted a text; write it in quotes"
        ]

    def test_a_token_that_is_there_twice_is_told_by_its_place(self) -> None:
        fragment = "server: {auth: {tokens: [{token: hunter2-1, user: a}, {token: hunter2-1, user: b}]}}"
        assert told_of(fragment) == [
            "server.auth.tokens[1].token: is the same as tokens[0].token; wanted another"
        ]

    def test_short_tokens_are_refused(self) -> None:
        assert told_of("server: {auth: {tokens: [{token: hunter2, user: bob}]}}") == [
            "server.auth.tokens[0].token: wanted at least 8 characters"
        ]


class TestFurtherChecks:
    """Checks of others join the report, with file and line."""

    TEXT = """\
agents:
  sound: {llm: gpt-4o}
  odd: {llm: gpt-5, prmpt: x}
  lost: {session_store: no, lm: o1}
  named: {llm: faulty, session_store: broken}
llms:
  faulty: {type: opnai}
session_stores:
  broken: {backend: sql}
"""

    @staticmethod
    def no_key(config: Config) -> Iterator[Problem]:
        for name, agent in config.agents.items():
            if agent.llm not in config.llms:
                yield config.problem(f"agents.{name}.llm", f"needs a key for {agent.llm}")

    def test_they_are_made_with_file_and_line(self) -> None:
        with pytest.raises(ConfigError) as caught:
            loads("agents:\n  b:\n    llm: gpt-4o\n", file="c.yaml", environ={}, checks=[self.no_key])
        assert caught.value.problems == (Problem("agents.b.llm", "needs a key for gpt-4o", "c.yaml", 3),)

    def test_they_look_at_what_is_sound_when_something_else_is_not(self) -> None:
        with pytest.raises(ConfigError) as caught:
            loads(self.TEXT, file="c.yaml", environ={}, checks=[self.no_key])
        assert [str(problem) for problem in caught.value.problems] == [
            "c.yaml:2: agents.sound.llm: needs a key for gpt-4o",
            "c.yaml:3: agents.odd.prmpt: unknown key (did you mean 'prompt'?)",
            "c.yaml:3: agents.odd.llm: needs a key for gpt-5",
            "c.yaml:4: agents.lost.session_store: no session store named 'no' (known: broken)",
            "c.yaml:4: agents.lost.llm: is missing",
            "c.yaml:4: agents.lost.lm: unknown key (did you mean 'llm'?)",
            (
                "c.yaml:7: llms.faulty.type: wanted openai, local or scripted, found 'opnai'"
                " (did you mean 'openai'?)"
            ),
            "c.yaml:9: session_stores.broken.sql: is missing; wanted a mapping",
        ]

    def test_the_sound_tools_beside_a_malformed_one_are_looked_at_and_keep_their_places(self) -> None:
        def none_load(config: Config) -> Iterator[Problem]:
            for index, tool in enumerate(config.agents["a"].tools):
                yield config.problem(f"agents.a.tools[{index}]", f"no {tool}")

        text = "agents:\n  a:\n    llm: x\n    tools:\n      - o:k\n      - bad\n      - ${NO}\n      - n:o\n"
        with pytest.raises(ConfigError) as caught:
            loads(text, file="c.yaml", environ={}, checks=[none_load])
        assert [(problem.line, problem.path, problem.text[:6]) for problem in caught.value.problems] == [
            (5, "agents.a.tools[0]", "no o:k"),
            (6, "agents.a.tools[1]", "wanted"),
            (7, "agents.a.tools[2]", "enviro"),
            (8, "agents.a.tools[3]", "no n:o"),
        ]

    def test_several_faults_of_one_model_leave_the_rest_to_be_looked_at(self) -> None:
        text = "agents: {a: {llm: x}}\nllms: {m: {type: openai, timeout: x, temperature: 9}}\nnope: 1\n"
        with pytest.raises(ConfigError) as caught:
            loads(text, environ={}, checks=[self.no_key])
        assert "agents.a.llm" in {problem.path for problem in caught.value.problems}

    @pytest.mark.parametrize(
        "text", ["agents: []", "agents: {a: x}", AGENT + "llms: []", "agents: {a/b: {llm: x}}"]
    )
    def test_they_are_not_called_when_too_little_is_sound(self, text: str) -> None:
        def never(config: Config) -> list[Problem]:
            raise AssertionError(config)

        with pytest.raises(ConfigError):
            loads(text, environ={}, checks=[never])
