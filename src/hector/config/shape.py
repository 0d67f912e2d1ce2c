"""The shape of the configuration, read off its model: which keys there are, and where."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from hector.config.model import Config
from hector.config.section import Section


@dataclass(frozen=True, slots=True)
class Value:
    """Neither a mapping nor a list."""

    choices: tuple[str, ...] = ()
    """What is allowed, where that is a fixed set."""
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    each: "Shape"


@dataclass(frozen=True, slots=True)
class Named:
    """A mapping by names that the operator chooses."""

    each: "Shape"


@dataclass(frozen=True, slots=True)
class Keys:
    section: type[Section]
    by: str | None = None
    """The key that chose this section among `others`."""
    tag: str | None = None
    others: tuple["Keys", ...] = ()

    @property
    def fields(self) -> Mapping[str, FieldInfo]:
        return self.section.written_keys()

    def at(self, key: str) -> "Shape | None":
        field = self.fields.get(key)
        return shape_of(field.annotation) if field else None


@dataclass(frozen=True, slots=True)
class Variants:
    """One of several sections; the key `by` says which."""

    by: str
    keys: Mapping[str, Keys]
    """By the value of that key."""


Shape: TypeAlias = Value | Items | Named | Keys | Variants


def shape_of(annotation: Any) -> Shape:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType}:
        members = [member for member in arguments if member is not types.NoneType]
        return _variants(members) if len(members) > 1 else shape_of(members[0])
    if origin is tuple:
        return Items(shape_of(arguments[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Named(shape_of(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Keys(annotation)
    return Value(choices=arguments if origin is Literal else (), secret=annotation is SecretStr)


def _variants(sections: list[type[Section]]) -> Variants:
    """The first key whose single choice differs from section to section is the one that chooses."""
    for key in sections[0].written_keys():
        tags = [_only_choice(section.written_keys().get(key)) for section in sections]
        if None not in tags:
            plain = [Keys(section, key, tag) for section, tag in zip(sections, tags, strict=True)]
            keys = {
                str(one.tag): Keys(one.section, key, one.tag, tuple(other for other in plain if other != one))
                for one in plain
            }
            return Variants(key, keys)
    raise TypeError(f"no key tells {sections} apart")


def _only_choice(field: FieldInfo | None) -> str | None:
    choices = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    return choices[0] if len(choices) == 1 else None


@dataclass(frozen=True, slots=True)
class Key:
    path: str
    """`server.auth.tokens[].user`, `llms.<name>.model`."""
    variant: str
    """`type: openai` where the key is there for that one alone; '' where there is no choice."""
    field: FieldInfo


def all_keys() -> Iterator[Key]:
    """Every key that takes a value, in the model's order."""
    yield from _keys(Keys(Config), "", "")


def _keys(shape: Shape, path: str, variant: str, field: FieldInfo | None = None) -> Iterator[Key]:
    match shape:
        case Keys(section=section):
            for name, inner in section.written_keys().items():
                yield from _keys(shape_of(inner.annotation), f"{path}.{name}".lstrip("."), variant, inner)
        case Variants(by=by, keys=keys):
            for tag, one in keys.items():
                yield from _keys(one, path, f"{by}: {tag}")
        case Items(each=Value()) | Named(each=Value()) | Value() if field is not None:
            yield Key(path, variant, field)
        case Named(each=each):
            yield from _keys(each, f"{path}.<name>", variant)
        case Items(each=each):
            yield from _keys(each, f"{path}[]", variant)
