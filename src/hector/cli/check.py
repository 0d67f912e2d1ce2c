"""`hector config check`: all that is wrong with a configuration, and nothing is started."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from hector.cli.config_file import config_path, load_config
from hector.cli.output import complain, count, visible
from hector.cli.settings import private_sessions
from hector.config.model import Config
from hector.domain.errors import ConfigError, Problem, StoreOpenError
from hector.domain.messages import JsonValue
from hector.runtime.probe import StoreProbe, probe_store


async def check_config(named: Path | None, *, connect: bool, as_json: bool) -> int:
    """The exit status. Raises `ConfigError` where that is the report."""
    try:
        config = load_config(named, _workers)
    except ConfigError as error:
        if not as_json:
            raise
        print(json.dumps(_report(error.problems), ensure_ascii=False, indent=2))
        return 2
    probes = await _probe_all(config) if connect else None
    if as_json:
        print(json.dumps(_report([], probes), ensure_ascii=False, indent=2))
    else:
        print(f"{config_path(named)}: ok ({_contents(config)})")
        for probe in probes or ():
            _tell(probe)
    return 2 if any(isinstance(probe, StoreOpenError) for probe in probes or ()) else 0


def _workers(config: Config) -> Iterator[Problem]:
    return private_sessions(config, config.server.workers)


async def _probe_all(config: Config) -> list[StoreProbe | StoreOpenError]:
    return await asyncio.gather(*(_probe(config, name) for name in config.session_stores))


async def _probe(config: Config, name: str) -> StoreProbe | StoreOpenError:
    try:
        return await probe_store(config, name)
    except StoreOpenError as error:
        return error


def _tell(probe: StoreProbe | StoreOpenError) -> None:
    if isinstance(probe, StoreOpenError):
        complain(probe)
        return
    facts = [
        probe.server or "in memory",
        probe.where,
        f"schema version {probe.schema}" if probe.schema else "",
    ]
    print(visible(f"session store {probe.name!r}: ok ({', '.join(filter(None, facts))})"))
    for warning in probe.warnings:
        print(visible(f"  {warning}"))


def _contents(config: Config) -> str:
    contents = [count(len(config.agents), "agent")]
    if config.session_stores:
        contents.append(count(len(config.session_stores), "session store"))
    return ", ".join(contents)


def _report(
    problems: Sequence[Problem], probes: Sequence[StoreProbe | StoreOpenError] | None = None
) -> dict[str, JsonValue]:
    """With `session_stores` if they were tried."""
    report: dict[str, JsonValue] = {
        "ok": not problems and not any(isinstance(probe, StoreOpenError) for probe in probes or ()),
        "problems": [
            {"file": each.file, "line": each.line, "path": each.path, "text": each.text} for each in problems
        ],
    }
    if probes is not None:
        report["session_stores"] = [_probe_report(probe) for probe in probes]
    return report


def _probe_report(probe: StoreProbe | StoreOpenError) -> dict[str, JsonValue]:
    if isinstance(probe, StoreOpenError):
        return {"name": probe.store, "ok": False, "error": str(probe)}
    return {
        "name": probe.name,
        "ok": True,
        "driver": probe.driver,
        "where": probe.where,
        "server": probe.server,
        "schema": probe.schema,
        "warnings": list(probe.warnings),
    }
