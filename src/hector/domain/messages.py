"""What is said in a conversation: messages made of parts."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeAlias, assert_never

from hector.domain.errors import InvalidError
from hector.domain.ids import check_storable

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Metadata: TypeAlias = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a model thought before it answered; sent back to the model that thought it, never to a client."""

    text: str
    signature: str | None = None
    """The provider's proof that the text is its own."""


@dataclass(frozen=True, slots=True)
class Data:
    value: JsonValue
    media_type: str | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file by its bytes or by its URL, one of the two. Hector never fetches the URL."""

    media_type: str | None = None
    name: str | None = None
    data: bytes | None = None
    url: str | None = None
    metadata: Metadata | None = None
    sha256: str | None = None
    """In hex, in place of the bytes where a listing did not read them from the store."""
    size: int | None = None
    """Bytes; beside `sha256`."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str
    """JSON text, exactly as the model wrote it: it may be malformed."""
    idempotent: bool = False
    """Whether the tool may run again after a crash; set by the engine before the call is stored."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    call_id: str
    name: str
    text: str
    is_error: bool = False
    question: str | None = None
    """For the user, if the tool asked one: the turn pauses when its other calls have results."""


UserPart: TypeAlias = Text | Data | File
ModelPart: TypeAlias = Text | Thinking | Data | File | ToolCall
Part: TypeAlias = Text | Thinking | Data | File | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class UserMessage:
    parts: tuple[UserPart, ...]
    metadata: Metadata | None = field(default=None, compare=False)
    """Kept for the client; not part of what was said, so repeats may differ in it."""
    extensions: tuple[str, ...] = field(default=(), compare=False)
    """URIs of A2A's extensions by whose rules the metadata is to be read; kept like that."""

    @property
    def text(self) -> str:
        return join_text(self.parts)


@dataclass(frozen=True, slots=True)
class ModelMessage:
    parts: tuple[ModelPart, ...]

    @property
    def text(self) -> str:
        return join_text(self.parts)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple([part for part in self.parts if isinstance(part, ToolCall)])


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """The result of one tool call; it follows the `ModelMessage` that made the call."""

    result: ToolResult

    @property
    def parts(self) -> tuple[ToolResult, ...]:
        return (self.result,)


Message: TypeAlias = UserMessage | ModelMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the provider reported them."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __bool__(self) -> bool:
        return self.input_tokens > 0 or self.output_tokens > 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


class StoredMessage(NamedTuple):  # made in a third of the time: each turn makes all those of a tail
    """A message in its place in a session. Its content never changes."""

    message: Message
    seq: int | None
    """From 1, without gaps in its session; None while it waits for its turn."""
    turn_id: str
    tokens: int = 0
    message_id: str | None = None
    """The client's; None on what the agent said."""
    unanswered: str | None = None
    """Why the turn has no answer (`crashed`, `waiting for input`, ...); None if it has or may get one."""
    created_at: datetime | None = None
    """UTC, by the database's clock; None where it was not read."""


def join_text(parts: tuple[Part, ...]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))


def check_message(message: UserMessage, field: str = "message") -> None:
    """Refuse what not every database can store. Raises `InvalidError`, which names the part."""
    if not message.parts:
        raise InvalidError(f"{field}.parts", "is empty; a message has at least one part")
    for number, part in enumerate(message.parts):
        place = f"{field}.parts[{number}]"
        match part:
            case Text(text):
                check_storable(text, f"{place}.text")
            case Data(value):
                _check_json(value, f"{place}.data")
            case File(media_type, name, _, url):
                for described in (media_type, name, url):
                    check_storable(described or "", f"{place}.file")
            case _:
                assert_never(part)
        _check_json(dict(part.metadata or {}), f"{place}.metadata")
    _check_json(dict(message.metadata or {}), f"{field}.metadata")
    for number, extension in enumerate(message.extensions):
        check_storable(extension, f"{field}.extensions[{number}]")


def size_of(message: Message) -> int:
    """Bytes of what a message carries, roughly as it is stored."""
    return sum(_part_size(part) for part in message.parts)


def _part_size(part: Part) -> int:
    match part:
        case Text(text) | Thinking(text) | ToolResult(_, _, text):
            return len(text.encode())
        case ToolCall(_, name, arguments):
            return len(name) + len(arguments.encode())
        case Data(value):
            return len(json.dumps(value, ensure_ascii=False).encode())
        case File(_, _, data, url):
            return len(data or b"") + len((url or "").encode())
        case _:
            assert_never(part)


_LARGEST = int(sys.float_info.max)


def _check_json(value: JsonValue, field: str) -> None:
    match value:
        case str():
            check_storable(value, field)
        case float() if not math.isfinite(value):
            raise InvalidError(field, f"holds {value}, which is no JSON number")
        case int() if abs(value) > _LARGEST:
            raise InvalidError(
                field, "holds a number beyond 1.8e308, the largest that most readers of JSON know"
            )
        case list():
            for item in value:
                _check_json(item, field)
        case dict():
            for name, item in value.items():
                check_storable(name, field)
                _check_json(item, field)
        case _:
            pass
