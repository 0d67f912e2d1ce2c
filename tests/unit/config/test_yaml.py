"""The file as YAML: what is understood, and what is told where it is none."""

from pathlib import Path

import pytest

from hector.config import Config, load, loads
from hector.domain.errors import ConfigError


def told(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, file="c.yaml", environ={})
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "c.yaml: wanted a mapping with at least `agents:`, found nothing"),
        ("# nothing yet\n", "c.yaml: wanted a mapping with at least `agents:`, found nothing"),
        ("- agents", "c.yaml: wanted a mapping with at least `agents:`, found a list"),
        ("agents", "c.yaml: wanted a mapping with at least `agents:`, found one value"),
        (
            "agents:\n\ta: {}",
            (
                r"c.yaml:2: is no YAML: found character '\t' that cannot start any token;"
                " YAML is indented with spaces, never with tabs"
            ),
        ),
        (
            "agents:\n  a: {llm: x\n",
            (
                "c.yaml:2: is no YAML: expected ',' or '}', but got '<stream end>'"
                " (while parsing a flow mapping that starts on line 2)"
            ),
        ),
        (
            "agents:\n  a:\n    prompt: you: are\n",
            (
                "c.yaml:3: is no YAML: mapping values are not allowed here;"
                " a text with ': ' in it is written in quotes"
            ),
        ),
        (
            'agents:\n  a:\n    prompt: "you\n',
            (
                "c.yaml:3: is no YAML: found unexpected end of stream"
                " (while scanning a quoted scalar that starts on line 3); the closing quote is missing"
            ),
        ),
        (
            "agents: {a: {llm: ${X}}}\n",
            (
                "c.yaml:1: is no YAML: expected ',' or '}', but got '{' (while parsing a flow mapping that"
                " starts on line 1); inside { } and [ ] a value with ${...} must be quoted"
            ),
        ),
        (
            "agents: {a: {tools: [x${X}]}}\n",
            (
                "c.yaml:1: is no YAML: expected ',' or ']', but got '{' (while parsing a flow sequence that"
                " starts on line 1); inside { } and [ ] a value with ${...} must be quoted"
            ),
        ),
        (
            "x: &base {}\nagents:\n  a: {<<: *bsae, llm: m}\n",
            (
                "c.yaml:3: is no YAML: found a reference (*bsae) to an anchor (&bsae) that is not there;"
                " a text that starts with '*' is written in quotes"
            ),
        ),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: is no YAML: found a second document; a configuration is one"),
        ("a: 1\nb: \x01\n", "c.yaml:2: is no YAML: it holds the control character 0x01"),
        ("agents: &a {b: *a}", "c.yaml: is nested too deeply, or in itself"),
        ("agents: &a\n  <<: *a\n", "c.yaml: is nested too deeply, or in itself"),
        ("[" * 5000, "c.yaml: is nested too deeply, or in itself"),
    ],
)
def test_what_is_no_configuration_at_all_is_one_problem(text: str, problem: str) -> None:
    assert told(text) == [problem]


@pytest.mark.parametrize("value", ["*hunter2", "!hunter2", "!hunter2!x", "&hunter2 &hunter2"])
def test_a_secret_that_yaml_takes_for_syntax_is_not_shown(value: str) -> None:
    problems = told(f"agents: {{a: {{llm: m}}}}\nllms:\n  m: {{type: openai, model: m, api_key: {value}}}\n")
    assert "c.yaml:3" in problems[0]
    assert "hunter2" not in "".join(problems)


def test_every_duplicate_key_is_told_and_hides_nothing_else() -> None:
    text = """\
agents:
  a:
    llm: gpt-4o
    llm: gpt-4o
  b: {llm: gpt-4o, session_store: second}
session_stores:
  first: {backend: memory}
session_stores:
  first: {backend: memory}
  second: {backend: memory, size: 3}
"""
    assert told(text) == [
        "c.yaml:3: agents.a.llm: is there twice, on line 3 and on line 4; keep one",
        "c.yaml:6: session_stores: is there twice, on line 6 and on line 8; keep one",
        "c.yaml:10: session_stores.second.size: unknown key (known: backend)",
    ]


def test_anchors_and_merge_keys_work_and_a_key_of_ones_own_wins() -> None:
    text = """\
agents:
  a: &common
    llm: gpt-4o
    prompt: common
    turns: &turns {max_steps: 7}
  b:
    prompt: own
    <<: *common
  c:
    <<: [{description: first}, {description: second, <<: *common}]
    turns: *turns
"""
    agents = loads(text, environ={}).agents
    assert (agents["b"].llm, agents["b"].prompt, agents["b"].turns.max_steps) == ("gpt-4o", "own", 7)
    assert (agents["c"].description, agents["c"].prompt, agents["c"].turns.max_steps) == (
        "first",
        "common",
        7,
    )


def test_an_anchor_may_be_set_anew() -> None:
    text = "agents:\n  a: {llm: &it x}\n  b: {llm: &it y}\n  c: {llm: *it}\n"
    assert loads(text, environ={}).agents["c"].llm == "y"


def test_a_merge_of_what_is_no_mapping_is_told() -> None:
    assert told("agents:\n  a: {llm: gpt-4o}\n  b:\n    <<: gpt-4o\n    llm: x\n") == [
        "c.yaml:3: agents.b: wanted a mapping, or a list of them, after << on line 4"
    ]


def test_a_fault_in_what_is_merged_is_told_where_it_was_written() -> None:
    text = "agents:\n  a: &common\n    llm: gpt-4o\n    prmpt: x\n  b: {<<: *common}\n"
    assert told(text) == [
        "c.yaml:4: agents.a.prmpt: unknown key (did you mean 'prompt'?)",
        "c.yaml:4: agents.b.prmpt: unknown key (did you mean 'prompt'?)",
    ]


@pytest.mark.parametrize("word", ["no", "on", "off", "yes", "y", "2026-11-22", "1:30", "=", "<<", "!!str 5"])
def test_words_that_other_yaml_takes_for_something_else_are_text(word: str) -> None:
    config = loads(f"agents: {{a: {{llm: gpt-4o, prompt: {word}}}}}", environ={})
    assert config.agents["a"].prompt == word.removeprefix("!!str ")


@pytest.mark.parametrize("name", ["no", "42", "1.5", "true", "null", "2026-11-22"])
def test_names_are_text_whatever_they_look_like(name: str) -> None:
    assert list(loads(f"agents: {{{name}: {{llm: gpt-4o}}}}", environ={}).agents) == [name]


def test_a_key_that_is_no_name_is_told() -> None:
    assert told("agents: {a: {llm: gpt-4o}}\n? [1, 2]\n: 3\n") == [
        "c.yaml: wanted a name as the key on line 2, found a list or mapping"
    ]


@pytest.mark.parametrize("value", ["!env HOME", "!!binary aGk=", "!!set {a}", "!!omap [a: 1]"])
def test_a_tag_that_nobody_knows_is_told(value: str) -> None:
    (problem,) = told(f"agents: {{a: {{llm: gpt-4o, prompt: {value}}}}}")[:1]
    assert problem.startswith("c.yaml:1: agents.a.prompt: has a YAML tag that Hector does not know")


@pytest.mark.parametrize(
    ("number", "meaning"), [("012", 12), ("0x10", 16), ("0o17", 15), ("1_000", 1000), ("+5", 5), ("7.0", 7)]
)
def test_whole_numbers(number: str, meaning: int) -> None:
    config = loads(f"agents: {{a: {{llm: gpt-4o, turns: {{max_steps: {number}}}}}}}", environ={})
    assert config.agents["a"].turns.max_steps == meaning


def test_a_key_with_nothing_after_it_counts_as_not_written() -> None:
    text = """\
server:
turns:
  max_wait:
  # max_steps: 3
llms:
session_stores:
logging: {level: }
agents:
  a:
    llm: gpt-4o
    session_store:
    memory:
      working:
        strategy:
"""
    assert loads(text, environ={}) == loads("agents: {a: {llm: gpt-4o}}", environ={})


class TestFiles:
    def test_a_file_is_read(self, tmp_path: Path) -> None:
        file = tmp_path / "config.yaml"
        file.write_bytes(b"\xef\xbb\xbfagents:\r\n  a: {llm: gpt-4o, prompt: gr\xc3\xbc\xc3\x9f Gott}\r\n")
        config = load(file, environ={})
        assert config.agents["a"].prompt == "grüß Gott"
        assert config.where("agents.a.prompt") == (str(file), 2)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert self.told(tmp_path / "no.yaml") == (
            "there is no such file; name another with --config, or make one (docs/configuration.md)",
            None,
        )

    def test_a_folder(self, tmp_path: Path) -> None:
        assert self.told(tmp_path) == ("is a folder; wanted a YAML file", None)

    def test_a_path_through_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert self.told(tmp_path / "file" / "c.yaml") == ("cannot be read: Not a directory", None)

    def test_what_is_not_utf_8(self, tmp_path: Path) -> None:
        file = tmp_path / "config.yaml"
        file.write_bytes("agents:\n  a: {prompt: grüß}".encode("latin-1"))
        assert self.told(file) == ("is not UTF-8 (byte 0xfc); save it as UTF-8", 2)

    def test_a_file_with_utf_16(self, tmp_path: Path) -> None:
        file = tmp_path / "config.yaml"
        file.write_text("agents: {}", encoding="utf-16")
        assert self.told(file) == ("is not UTF-8 (byte 0xff); save it as UTF-8", 1)

    def told(self, file: Path) -> tuple[str, int | None]:
        with pytest.raises(ConfigError) as caught:
            load(str(file), environ={})
        (problem,) = caught.value.problems
        assert problem.file == str(file)
        return problem.text, problem.line


def test_the_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HECTOR_TEST_MODEL", "gpt-4o")
    config: Config = loads("agents: {a: {llm: '${HECTOR_TEST_MODEL}'}}")
    assert config.agents["a"].llm == "gpt-4o"
