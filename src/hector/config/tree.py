"""YAML text -> plain values, with the line of each and the environment's values in place."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from hector.config.expand import expand
from hector.config.faults import Fault, KeyPath, dotted
from hector.domain.errors import ConfigError, Problem

_CORE = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({"str", "timestamp", "value", "merge"})
_ALIAS = re.compile(r"\*([^\s,\[\]{}]+)")
_KEY_BEFORE = re.compile(r"(<<|[A-Za-z0-9_-]+)\s*:\s+$")
_SECRET_KEY = re.compile("key|token|secret|pass|auth|pw", re.IGNORECASE)
_HINTS = {
    r"found character '\t' that cannot start any token": "YAML is indented with spaces, never with tabs",
    "mapping values are not allowed here": "a text with ': ' in it is written in quotes",
    "that cannot start any token": "a text that starts with this character is written in quotes",
    "found unexpected end of stream": "the closing quote is missing",
}


@dataclass(slots=True)
class Tree:
    """A file's values: mappings with text as keys, lists, text, numbers, booleans, None."""

    value: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    """By dotted path, from 1."""
    variables: dict[KeyPath, tuple[str, ...]] = field(default_factory=dict)
    """Where the environment was read; such values are not shown, for they may be secret."""
    faults: list[Fault] = field(default_factory=list)
    unreadable: set[KeyPath] = field(default_factory=set)
    """What stands as '' because of one of the faults."""

    def at(self, path: KeyPath) -> tuple[bool, Any]:
        """Whether anything was written there, and what."""
        value = self.value
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return False, None
        return True, value


def read_tree(text: str, file: str, environ: Mapping[str, str]) -> Tree:
    """Raises `ConfigError` where the text is no YAML; other faults are in the tree."""
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # a later anchor of the same name simply counts from there on
    try:
        root = yaml.compose(text)
        builder = _Builder(yaml, environ)
        if root is not None:
            builder.tree.value = builder.build(root, ())
    except RecursionError:
        raise ConfigError([Problem("", "is nested too deeply, or in itself", file)]) from None
    except YAMLError as error:
        # The library's own text quotes the line, which may hold a secret.
        raise ConfigError([_syntax_problem(error, text, file)]) from None
    return builder.tree


class _Builder:
    def __init__(self, yaml: YAML, environ: Mapping[str, str]) -> None:
        self.tree = Tree()
        self._yaml = yaml
        self._environ = environ

    def build(self, node: Node, path: KeyPath) -> Any:
        match node:
            case MappingNode():
                self._check_tag(node, path, "map")
                return self._mapping(node, path)
            case SequenceNode():
                self._check_tag(node, path, "seq")
                return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node, path)

    def _item(self, node: Node, path: KeyPath) -> Any:
        self.tree.lines[dotted(path)] = node.start_mark.line + 1
        return self.build(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in self._entries(node, path):
            key = str(key_node.value)
            here = (*path, key)
            self.tree.lines[dotted(here)] = key_node.start_mark.line + 1
            values[key] = self.build(value_node, here)
        return values

    def _entries(self, node: MappingNode, path: KeyPath) -> Iterator[tuple[ScalarNode, Node]]:
        """What stands in the mapping, and before it what it merges: a key that it has itself wins."""
        own: dict[str, tuple[ScalarNode, Node]] = {}
        merged: dict[str, tuple[ScalarNode, Node]] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._fault(
                    path, f"wanted a name as the key on line {_line(key_node)}, found a list or mapping"
                )
            elif _tag(key_node) == "merge":
                for source in self._sources(value_node, path):
                    for entry in self._entries(source, path):
                        merged.setdefault(entry[0].value, entry)
            elif key_node.value in own:
                first = _line(own[key_node.value][0])
                here = (*path, key_node.value)
                self._fault(here, f"is there twice, on line {first} and on line {_line(key_node)}; keep one")
                own[key_node.value] = own[key_node.value][0], _joined(own[key_node.value][1], value_node)
            else:
                own[key_node.value] = key_node, value_node
        yield from (merged | own).values()

    def _sources(self, node: Node, path: KeyPath) -> list[MappingNode]:
        nodes = node.value if isinstance(node, SequenceNode) else [node]
        sources = [source for source in nodes if isinstance(source, MappingNode)]
        if len(sources) < len(nodes):
            self._fault(path, f"wanted a mapping, or a list of them, after << on line {_line(node)}")
        return sources

    def _scalar(self, node: Node, path: KeyPath) -> Any:
        tag = _tag(node)
        try:
            match tag:
                case "null":
                    return None
                case "bool":
                    return self._yaml.constructor.construct_yaml_bool(node)
                case "int":
                    return int(self._yaml.constructor.construct_yaml_int(node))
                case "float":
                    return float(self._yaml.constructor.construct_yaml_float(node))
        except (KeyError, ValueError):
            return node.value  # `!!int x`, and what only looks like a number
        if tag not in _TEXT_TAGS:
            self.tree.unreadable.add(path)
            self._fault(
                path,
                "has a YAML tag that Hector does not know; a text that starts with '!' is written in quotes",
            )
            return ""
        return self._expanded(node.value, path)

    def _expanded(self, text: str, path: KeyPath) -> str | None:
        expansion = expand(text, self._environ)
        for fault in expansion.faults:
            self._fault(path, fault)
        if expansion.faults:
            self.tree.unreadable.add(path)
            return ""
        if expansion.variables:
            self.tree.variables[path] = expansion.variables
            if not expansion.text:
                return None  # `key: ${VAR:-}` is `key:` if VAR is empty
        return expansion.text

    def _check_tag(self, node: Node, path: KeyPath, wanted: str) -> None:
        if _tag(node) != wanted:
            self._fault(path, "has a YAML tag that Hector does not know; remove it")

    def _fault(self, path: KeyPath, text: str) -> None:
        self.tree.faults.append(Fault(path, text))


def _joined(first: Node, second: Node) -> Node:
    """The first with what only the second has, so that names in the second are not taken for missing."""
    if isinstance(first, MappingNode) and isinstance(second, MappingNode):
        keys = {key.value for key, _ in first.value if isinstance(key, ScalarNode)}
        more = [entry for entry in second.value if entry[0].value not in keys]
        return MappingNode(first.ctag, first.value + more, first.start_mark, second.end_mark)
    return first


def _tag(node: Node) -> str:
    return str(node.tag).removeprefix(_CORE)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_problem(error: YAMLError, text: str, file: str) -> Problem:
    match error:
        case ReaderError():
            line = text.count("\n", 0, error.position) + 1
            return Problem(
                "", f"is no YAML: it holds the control character {error.character:#04x}", file, line
            )
        case MarkedYAMLError():
            # What is never closed is noticed at the file's end, which helps nobody.
            unclosed = "stream end" in str(error.problem) or "end of stream" in str(error.problem)
            marks = (error.problem_mark, error.context_mark)
            mark = next(filter(None, reversed(marks) if unclosed else marks), None)
            return Problem(
                "", f"is no YAML: {_explained(error, text)}", file, mark.line + 1 if mark else None
            )
        case _:
            return Problem("", "is no YAML", file)


def _explained(error: MarkedYAMLError, text: str) -> str:
    problem = str(error.problem)
    if isinstance(error, ComposerError) and "undefined alias" in problem:
        name = _alias(error, text)
        return (
            f"found a reference (*{name or 'name'}) to an anchor (&{name or 'name'}) that is not there;"
            " a text that starts with '*' is written in quotes"
        )
    if isinstance(error, ComposerError):
        return "found a second document; a configuration is one"
    if "tag handle" in problem:
        return "found an unknown tag; a text that starts with '!' is written in quotes"
    start = error.context_mark
    context = f" ({error.context} that starts on line {start.line + 1})" if error.context and start else ""
    hint = next((f"; {hint}" for part, hint in _HINTS.items() if part in problem), "")
    mark = error.problem_mark
    if mark and text[mark.index - 1 : mark.index + 1] == "${":
        hint = "; inside { } and [ ] a value with ${...} must be quoted"
    return f"{problem}{context}{hint}"


def _alias(error: ComposerError, text: str) -> str:
    """Its name; '' where it may be an unquoted password that starts with '*'."""
    mark = error.problem_mark
    if not mark:
        return ""
    line = text[: mark.index].rpartition("\n")[2]
    key = _KEY_BEFORE.search(line)
    if not key or _SECRET_KEY.search(key[1]):
        return ""
    name = _ALIAS.match(text, mark.index)
    return name[1] if name else ""
