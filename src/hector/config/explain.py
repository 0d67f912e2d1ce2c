"""What pydantic found wrong, in the operator's words."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hector.config.faults import Fault, FaultsError, KeyPath
from hector.config.model import Config
from hector.config.shape import Items, Keys, Named, Shape, Value, Variants
from hector.config.suggest import did_you_mean, one_of
from hector.config.tree import Tree
from hector.config.values import SecretFoundError

_LONGEST_SHOWN = 60

_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "path_type": "a path",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an error is, in the file and in the model."""

    path: KeyPath
    shape: Shape | None
    """Of what is there; None for an unknown key."""
    around: Keys | None
    """The section that the last key belongs to."""
    is_name: bool = False
    """The name itself is at fault, and not what it names."""


def faults_of(error: ValidationError, tree: Tree) -> list[Fault]:
    details = error.errors(include_url=False, include_input=False)
    faults = [fault for detail in details for fault in _faults(detail, tree)]
    return [_where_written(fault, tree) for fault in faults]


def _faults(detail: ErrorDetails, tree: Tree) -> Iterator[Fault]:
    place = _place(detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, FaultsError):
        for fault in cause.faults:
            silences = None if fault.silences is None else place.path + fault.silences
            yield Fault(place.path + fault.path, fault.text, silences)
    elif isinstance(place.shape, Variants) and detail["type"].startswith("union_tag"):
        path = (*place.path, place.shape.by)
        # Another driver has other keys altogether, and what is wrong with them is not worth telling.
        silences = place.path if place.shape.by == "driver" else None
        yield Fault(path, _wrong_choice(tuple(place.shape.keys), path, tree), silences)
    elif detail["type"] != "default_factory_not_called":  # a default of what is at fault itself
        yield Fault(place.path, _text(detail, place, tree))


def _where_written(fault: Fault, tree: Tree) -> Fault:
    """What came out of a dsn is told where that stands."""
    match fault.path:
        case ("session_stores", _, "sql", str() as key, *_) if tree.at(fault.path)[1] is None:
            for name in ("dsn", "url"):
                path = (*fault.path[:3], name)
                if tree.at(path)[1] is not None:
                    return Fault(path, f"its {key}: {fault.text}", fault.silences)
    return fault


def _place(loc: tuple[int | str, ...]) -> _Place:
    """Pydantic's path has the tag of a union in it, which the operator never wrote there."""
    path: KeyPath = ()
    shape: Shape | None = Keys(Config)
    around: Keys | None = None
    in_names = False
    for part in loc:
        if in_names and part == "[key]":
            return _Place(path, shape, around, is_name=True)
        if isinstance(shape, Variants):
            shape, in_names = shape.keys[str(part)], False
            continue
        in_names = isinstance(shape, Named)
        match shape:
            case Keys():
                around, shape = shape, shape.at(str(part))
            case Named(each=each) | Items(each=each):
                around, shape = None, each
            case _:
                shape = None
        path = (*path, part)
    return _Place(path, shape, around)


def _text(detail: ErrorDetails, place: _Place, tree: Tree) -> str:
    written, value = tree.at(place.path)
    kind, context = detail["type"], detail.get("ctx", {})
    match kind:
        case "extra_forbidden" if place.around:
            return _unknown_key(str(place.path[-1]), place.around)
        case "missing":
            missing = _missing(place.path, tree, written=written)
            wanted = _wanted(place.shape)
            return f"{missing}; wanted {wanted}" if wanted else missing
        case "literal_error" if isinstance(place.shape, Value) and written:
            return _wrong_choice(place.shape.choices, place.path, tree)
        case "literal_error" if isinstance(place.shape, Value):
            return f"wanted {one_of(place.shape.choices)}"
        case "too_short":
            return "wanted at least one"
        case "value_error":
            if place.is_name:
                return str(context["error"])
            hidden = isinstance(context["error"], SecretFoundError)
            return str(context["error"]) + ("" if hidden else _found(place, tree))
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"wanted {words} {context[bound]}{_found(place, tree)}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f"wanted a text{_found(place, tree)}; write it in quotes"
    if not isinstance(place.shape, Value):
        return f"wanted {_wanted(place.shape)}, found {_kind(value)}"
    return f"wanted {_WANTED.get(kind, 'another value')}{_found(place, tree)}"


def _unknown_key(key: str, around: Keys) -> str:
    if key in around.section.strangers:
        return around.section.strangers[key]
    if tags := [str(other.tag) for other in around.others if key in other.fields]:
        keys = ", ".join(name for name in around.fields if name != around.by)
        has = f"which has {keys}" if keys else "which has no other keys"
        return f"is a key of {around.by}: {one_of(tags)}, and this is {around.by}: {around.tag}, {has}"
    hint = did_you_mean(key, around.fields) or f" (known: {', '.join(around.fields)})"
    return f"unknown key{hint}"


def _missing(path: KeyPath, tree: Tree, *, written: bool) -> str:
    if variables := tree.variables.get(path):
        return f"is empty, for {named(variables)} is"
    return "is empty" if written else "is missing"


def _wrong_choice(choices: tuple[str, ...], path: KeyPath, tree: Tree) -> str:
    written, value = tree.at(path)
    wanted = f"wanted {one_of(choices)}"
    if value is None:
        return f"{_missing(path, tree, written=written)}; {wanted}"
    guess = isinstance(value, str) and path not in tree.variables
    return f"{wanted}{_shown(path, tree)}{did_you_mean(value, choices) if guess else ''}"


def _wanted(shape: Shape | None) -> str:
    """'' where the key's name says it all."""
    match shape:
        case Keys() | Variants():
            return "a mapping"
        case Named():
            return "a mapping of names"
        case Items():
            return "a list"
        case Value(choices=choices) if choices:
            return one_of(choices)
        case _:
            return ""


def _found(place: _Place, tree: Tree) -> str:
    if isinstance(place.shape, Value) and place.shape.secret:
        return ""
    return _shown(place.path, tree)


def _shown(path: KeyPath, tree: Tree) -> str:
    """`, found 'x'`; of what came from the environment only the variable's name."""
    if variables := tree.variables.get(path):
        return f", found something else in {named(variables)}"
    written, value = tree.at(path)
    if not written:
        return ""
    match value:
        case bool():
            shown = str(value).lower()
        case str() | int() | float():
            shown = repr(value)
        case _:
            shown = _kind(value)
    return f", found {shown if len(shown) <= _LONGEST_SHOWN else _kind(value)}"


def named(variables: Iterable[str]) -> str:
    """`${A} and ${B}`."""
    return " and ".join(f"${{{name}}}" for name in dict.fromkeys(variables))


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return "a text"
        case bool():
            return "true or false"
        case _:
            return "a number"
