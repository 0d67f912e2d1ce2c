"""docs/configuration.md and the configuration's model agree on every key, its default and its choices."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from hector.config import loads
from hector.config.shape import Key, all_keys, shape_of
from hector.config.shape import Value as OneValue
from hector.config.values import parse_duration, parse_size

REFERENCE = Path(__file__).parent.parent / "docs" / "configuration.md"

_ROW = re.compile(r"\| `(?P<key>[a-z_.<>\[\]]+)` \| (?P<value>[^|]*) \| (?P<default>[^|]*) \|[^|]*\|")
_VARIANT = re.compile(r"#+ `[^`]+` with `(?P<variant>[^`]+)`")


@dataclass(frozen=True, slots=True)
class Row:
    value: str
    default: str


def documented() -> Iterator[tuple[tuple[str, str], Row]]:
    variant = ""
    for line in REFERENCE.read_text().splitlines():
        if line.startswith("#"):
            heading = _VARIANT.fullmatch(line)
            variant = heading["variant"] if heading else ""
        elif row := _ROW.fullmatch(line):
            yield (row["key"], variant), Row(row["value"], row["default"].strip("`"))


ROWS = dict(documented())
KEYS = {(key.path, key.variant): key for key in all_keys()}


def test_every_key_is_documented_once_and_every_documented_key_exists() -> None:
    assert sorted(pair for pair, _ in documented()) == sorted(KEYS)


@pytest.mark.parametrize("place", sorted(KEYS))
def test_the_documented_default_is_the_real_one(place: tuple[str, str]) -> None:
    assert _means(ROWS[place].default, KEYS[place])


@pytest.mark.parametrize("place", sorted(KEYS))
def test_the_documented_choices_are_the_real_ones(place: tuple[str, str]) -> None:
    shape = shape_of(KEYS[place].field.annotation)
    choices = set(shape.choices) if isinstance(shape, OneValue) else set()
    if choices:
        assert set(re.findall(r"`([^`]+)`", ROWS[place].value)) == choices


def _means(written: str, key: Key) -> bool:
    match key.field.default:
        case default if default is PydanticUndefined:
            return written == ("*required*" if key.field.is_required() else "a quarter of max_conns")
        case None:
            return written == "*none*"
        case "" | () | {}:
            return written == "empty"
        case bool(default):
            return written == str(default).lower()
        case int(default) if key.path.startswith("server.limits"):
            return parse_size(written) == default
        case int(default) | float(default):
            return parse_duration(written) == default
        case default:
            return written == str(default)


ENVIRON = {
    "ALICE_TOKEN": "alice-0123456789",
    "OPERATOR_TOKEN": "operator-0123456789",
    "OPENAI_API_KEY": "sk-0123456789",
    "DB_PASSWORD": "s3cret",
    "DB_URL": "postgres://hector:s3cret@db.example.com/hector_sessions?sslmode=require",
    # Any file that is there.
    "DB_CA": str(REFERENCE),
}
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", REFERENCE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_configuration_load(example: str) -> None:
    assert loads(example, environ=ENVIRON).agents
