import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hector.config import loads
from hector.config.expand import expand

ENVIRON = {"HOST": "db.example.com", "PORT": "5432", "EMPTY": "", "NESTED": "${HOST}"}

names = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=12).filter(
    lambda name: not name[0].isdigit()
)
# What an environment variable can hold, which is any text without NUL.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
dollar_texts = st.text("$${}:-aA_ \n", max_size=30)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("${HOST}", "db.example.com"),
        ("https://${HOST}:${PORT}/x", "https://db.example.com:5432/x"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${NOBODY:-default}", "default"),
        ("${NOBODY:-}", ""),
        ("${NOBODY:-a:-b $c {d}", "a:-b $c {d"),
        ("${NOBODY:-two\nlines}", "two\nlines"),
        ("${HOST:-default}", "db.example.com"),
        ("${NESTED}", "${HOST}"),
        ("$${HOST}", "${HOST}"),
        ("$$${HOST}", "$${HOST}"),
        ("$HOST costs $5, $$ and $", "$HOST costs $5, $$ and $"),
        ("{HOST} $ {HOST}", "{HOST} $ {HOST}"),
    ],
)
def test_substitutions(text: str, expanded: str) -> None:
    assert expand(text, ENVIRON).text == expanded
    assert not expand(text, ENVIRON).faults


def test_every_unset_variable_is_told_with_the_nearest_that_is_set() -> None:
    assert expand("${POTR} and ${NOBODY} and ${HOST}", ENVIRON).faults == (
        (
            "environment variable POTR is not set (did you mean 'PORT'?);"
            " set it, or write ${POTR:-default} to do without"
        ),
        "environment variable NOBODY is not set; set it, or write ${NOBODY:-default} to do without",
    )


@pytest.mark.parametrize(
    "text", ["${", "${}", "${HOST", "${1A}", "${a-b}", "${A:b}", "${A:-${HOST}}", "${ A }"]
)
def test_what_looks_like_a_substitution_and_is_none_is_a_fault(text: str) -> None:
    (fault,) = expand(text, ENVIRON).faults
    assert fault.startswith("wanted ${NAME} or ${NAME:-default}")


def test_the_variables_that_were_read_are_told() -> None:
    assert expand("${HOST}:${PORT:-1}:${NOBODY:-2}", ENVIRON).variables == ("HOST", "PORT", "NOBODY")
    assert expand("$${HOST}", ENVIRON).variables == ()


@given(dollar_texts | texts)
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    expansion = expand(text.replace("${", "$${"), {})
    assert (expansion.text, expansion.faults) == (text, ())


@given(dollar_texts.filter(lambda text: "${" not in text) | texts.filter(lambda text: "${" not in text))
def test_text_without_a_substitution_is_untouched(text: str) -> None:
    assert expand(text, {"A": "x", "a": "y"}).text == text


@given(
    st.lists(st.tuples(texts.filter(lambda text: "$" not in text), names, dollar_texts | texts), max_size=5)
)
def test_values_stand_where_their_names_stood_whatever_they_hold(parts: list[tuple[str, str, str]]) -> None:
    environ = {name: value for _, name, value in parts}
    text = "".join(f"{before}${{{name}}}" for before, name, _ in parts)
    assert expand(text, environ).text == "".join(before + environ[name] for before, name, _ in parts)


@given(texts)
def test_a_value_cannot_change_the_rest_of_the_file(value: str) -> None:
    text = 'agents:\n  a:\n    llm: gpt-4o\n    prompt: ">${VALUE}<"\n    description: after\n'
    agent = loads(text, environ={"VALUE": value}).agents["a"]
    assert (agent.prompt, agent.description, agent.llm) == (f">{value}<", "after", "gpt-4o")


@given(texts.filter(bool))
def test_a_whole_value_of_a_text_key_stays_a_text(value: str) -> None:
    config = loads("agents: {a: {llm: gpt-4o, prompt: '${VALUE}'}}", environ={"VALUE": value})
    assert config.agents["a"].prompt == value
