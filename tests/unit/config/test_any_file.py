"""Whatever a file holds, it is a configuration or a report, and the report gives nothing away."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hector.config import Config, loads
from hector.config.shape import all_keys
from hector.domain.errors import ConfigError, Problem

SECRET = "hunter2-\u00e4"
WORDS = sorted({word for key in all_keys() for word in key.path.replace("[]", "").split(".")} - {"<name>"})
CHOICES = ["sql", "memory", "sqlite", "postgres", "openai", "local", "scripted", "buffer_window", "gpt-4o"]
SECTIONS = ["agents", "llms", "session_stores", "server", "turns", "logging"]

keys = st.sampled_from([*WORDS, "a", "b", "[key]", "", "<<", "no name"])
scalars = st.sampled_from(
    [None, True, -1, 0, 3, 2.5, 10**400, "", "a", "b", "${SET}", "${UNSET}", "${", "1s", "2MB", *CHOICES]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5)
)
named = st.dictionaries(keys, st.dictionaries(keys, values, max_size=5) | values, max_size=3)
files = st.dictionaries(st.sampled_from([*SECTIONS, "other"]), named | values, max_size=6)
tokens = st.lists(
    st.dictionaries(st.sampled_from(["token", "user", SECRET]), st.just(SECRET), max_size=3) | st.just(SECRET)
)


@given(files, tokens | st.dictionaries(st.just(SECRET), values, min_size=1))
def test_any_file_is_read_or_reported(file: dict[str, Any], secrets: object) -> None:
    text = json.dumps({"server": {"auth": {"tokens": secrets}}} | file, indent=1)  # which is YAML as well

    def check(config: Config) -> list[Problem]:
        return [config.problem(f"agents.{name}.llm", "was looked at") for name in config.agents]

    with pytest.raises(ConfigError) as caught:
        loads(text, file="c.yaml", environ={"SET": SECRET}, checks=[check])
    assert caught.value.problems
    assert SECRET not in str(caught.value)
    assert all(1 <= (problem.line or 1) <= text.count("\n") + 1 for problem in caught.value.problems)
