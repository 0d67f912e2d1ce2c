"""A file's text -> Config, or one `ConfigError` with all that is wrong; reads the environment."""

import copy
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from hector.config.explain import faults_of, named
from hector.config.faults import Fault, KeyPath, dotted, starts_with
from hector.config.locate import Locator
from hector.config.model import Config, dangling_default_agent, dangling_stores
from hector.config.tree import Tree, read_tree
from hector.domain.errors import ConfigError, Problem

Check: TypeAlias = Callable[[Config], Iterable[Problem]]
"""Looks for what shape alone does not show, like missing API keys; makes its problems with `config.problem`.

Where the file has faults it is called with the part that has none (sound agents, and the models and stores
that they may name), so that its problems join the same report.
"""

_STAND_INS: Mapping[str, Mapping[str, str]] = {
    "llms": {"type": "scripted"},
    "session_stores": {"backend": "memory"},
}


def load(
    path: str | Path, *, environ: Mapping[str, str] | None = None, checks: Sequence[Check] = ()
) -> Config:
    """Raises `ConfigError` with every problem of the file."""
    return loads(read(Path(path), str(path)), file=str(path), environ=environ, checks=checks)


def loads(
    text: str,
    *,
    file: str = "",
    environ: Mapping[str, str] | None = None,
    checks: Sequence[Check] = (),
) -> Config:
    """As `load`, of a text; `file` is what problems call it."""
    tree = read_tree(text, file, os.environ if environ is None else environ)
    if not isinstance(tree.value, dict):
        found = "nothing" if tree.value is None else "a list" if isinstance(tree.value, list) else "one value"
        raise ConfigError([Problem("", f"wanted a mapping with at least `agents:`, found {found}", file)])
    locator = Locator(file, tree.lines)
    config, faults, left_out = _validated(tree)
    problems = [_problem(fault, locator) for fault in faults]
    if config:
        moved = _moved(config, left_out)
        config._locator = replace(locator, moved=moved)  # noqa: SLF001 - only whoever read the file knows
        problems += [problem for check in checks for problem in check(config)]
    if problems or not config:
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    return config


def read(path: Path, file: str) -> str:
    """A file's text; `file` is what problems call it. Raises `ConfigError`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        text = "there is no such file; name another with --config, or make one (docs/configuration.md)"
        raise ConfigError([Problem("", text, file)]) from None
    except IsADirectoryError:
        raise ConfigError([Problem("", "is a folder; wanted a YAML file", file)]) from None
    except OSError as error:
        raise ConfigError([Problem("", f"cannot be read: {error.strerror}", file)]) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        text = f"is not UTF-8 (byte {raw[error.start]:#04x}); save it as UTF-8"
        raise ConfigError([Problem("", text, file, line)]) from None


def _validated(tree: Tree) -> tuple[Config | None, list[Fault], set[KeyPath]]:
    """The configuration, or the sound part of it (None if there is too little), all faults, and where
    pydantic found them: what stands there is not in the sound part.
    """
    part: dict[str, Any] | None = tree.value
    dangling = _dangling(tree)
    faults = [*tree.faults, *dangling]
    # What follows from a value that could not be read is nothing new, nor is what was found already.
    known = tree.unreadable | {fault.path for fault in dangling}
    left_out: set[KeyPath] = set()
    while part is not None:
        try:
            return Config.model_validate(part), faults, left_out
        except ValidationError as error:
            found = faults_of(error, tree)
        told = [fault for fault in found if fault.path not in known]
        silenced = [fault.silences for fault in told if fault.silences is not None]
        faults = [fault for fault in faults if not _below(fault.path, silenced)] + told
        left_out |= {fault.path for fault in found}
        part = _sound(part, found)
    return None, faults, left_out


def _dangling(tree: Tree) -> list[Fault]:
    """References are looked at in the raw file, so that faults of shape hide none."""
    agents, stores = tree.value.get("agents"), tree.value.get("session_stores")
    if not isinstance(agents, dict) or not isinstance(stores, dict | None):
        return []
    wanted = {
        name: agent["session_store"]
        for name, agent in agents.items()
        if isinstance(agent, dict)
        and isinstance(agent.get("session_store"), str)
        and ("agents", name, "session_store") not in tree.unreadable
    }
    return [
        replace(fault, text=f"no session store has the name in {named(tree.variables[fault.path])}")
        if fault.path in tree.variables
        else fault
        for fault in dangling_stores(wanted, stores or {})
    ] + _dangling_default_agent(tree, agents)


def _dangling_default_agent(tree: Tree, agents: Collection[str]) -> list[Fault]:
    path = ("server", "default_agent")
    _, wanted = tree.at(path)
    if not isinstance(wanted, str) or not wanted.strip() or path in tree.unreadable:
        return []
    faults = dangling_default_agent(wanted, agents)
    if faults and path in tree.variables:
        return [Fault(path, f"no agent has the name in {named(tree.variables[path])}")]
    return faults


def _sound(part: Mapping[str, Any], faults: Iterable[Fault]) -> dict[str, Any] | None:
    """The file without what is at fault, so that the rest can be looked at; None if nothing can.

    A model or store at fault is replaced by one that is not, as its name is still one that agents may use.
    """
    sound = copy.deepcopy(dict(part))
    for fault in faults:
        match fault.path:
            case (str() as section, str() as name, *_) if stand_in := _STAND_INS.get(section):
                if part[section][name] == stand_in:
                    return None
                sound[section][name] = stand_in
            case ("agents", str(), "tools", int()):
                pass  # below: to take one out would move those after it
            case ("agents", str() as name, *rest):
                _leave_out(sound["agents"], name, rest)
            case ("agents" | "llms" | "session_stores",) | ():
                return None
            case (section, *_):
                sound.pop(str(section), None)
    left_out = {fault.path for fault in faults}
    for name, agent in sound.get("agents", {}).items():
        if isinstance(agent, dict) and isinstance(tools := agent.get("tools"), list):
            agent["tools"] = [
                tool for index, tool in enumerate(tools) if ("agents", name, "tools", index) not in left_out
            ]
    server = sound.get("server")
    if isinstance(server, dict) and server.get("default_agent") not in sound.get("agents", {}):
        server.pop("default_agent", None)
    return sound if sound.get("agents") else None


def _moved(config: Config, left_out: Collection[KeyPath]) -> dict[str, str]:
    """What checks call the second tool is the file's third where one before it was left out."""
    moved = {}
    for name, agent in config.agents.items():
        tools = ("agents", name, "tools")
        kept = (index for index in itertools.count() if (*tools, index) not in left_out)
        for now, index in zip(range(len(agent.tools)), kept, strict=False):
            if now != index:
                moved[dotted((*tools, now))] = dotted((*tools, index))
    return moved


def _leave_out(agents: dict[str, Any], name: str, key: Sequence[str | int]) -> None:
    """The key at fault where an agent can do without it; else the agent."""
    if key and key[0] != "llm" and key[0] in agents.get(name, {}):
        del agents[name][key[0]]
    else:
        agents.pop(name, None)


def _problem(fault: Fault, locator: Locator) -> Problem:
    path = dotted(fault.path)
    return Problem(path, fault.text, locator.file, locator.line(path))


def _below(path: KeyPath, starts: Iterable[KeyPath]) -> bool:
    return any(starts_with(path, start) for start in starts)
