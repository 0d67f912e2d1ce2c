"""Log lines."""

import json
import logging
import sys

import pytest

from hector.cli.logs import JsonLines


def record(message: str, *args: object, **more: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {
            "name": "hector.x",
            "levelname": "WARNING",
            "msg": message,
            "args": args,
            "created": 0.25,
            "msecs": 250.0,
        }
    )
    made.__dict__.update(more)
    return made


def test_a_record_is_one_line_of_json() -> None:
    line = JsonLines().format(record("lost %s\nof %d", "ü", 2))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "hector.x",
        "message": "lost ü\nof 2",
    }


def test_an_exception_is_part_of_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    line = JsonLines().format(record("oops", exc_info=(raised.type, raised.value, raised.tb)))
    assert "\n" not in line
    assert "ZeroDivisionError" in json.loads(line)["exception"]
    assert sys.exc_info() == (None, None, None)
