"""`hector config check`: all that is wrong with a configuration, and nothing is started."""

import json
from collections.abc import Sequence
from pathlib import Path

from hector.cli.config_file import config_path, load_config
from hector.cli.output import count
from hector.config.model import Config
from hector.domain.errors import ConfigError, Problem
from hector.domain.messages import JsonValue


def check_config(named: Path | None, *, as_json: bool) -> int:
    """The exit status. Raises `ConfigError` where that is the report."""
    try:
        config = load_config(named)
    except ConfigError as error:
        if not as_json:
            raise
        print(json.dumps(_report(error.problems), ensure_ascii=False, indent=2))
        return 2
    print(json.dumps(_report([]), indent=2) if as_json else f"{config_path(named)}: ok ({_contents(config)})")
    return 0


def _contents(config: Config) -> str:
    contents = [count(len(config.agents), "agent")]
    if config.session_stores:
        contents.append(count(len(config.session_stores), "session store"))
    return ", ".join(contents)


def _report(problems: Sequence[Problem]) -> dict[str, JsonValue]:
    return {
        "ok": not problems,
        "problems": [
            {"file": each.file, "line": each.line, "path": each.path, "text": each.text} for each in problems
        ],
    }
