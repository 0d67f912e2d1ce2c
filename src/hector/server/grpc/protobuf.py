"""Between protobuf's messages and its JSON, in which the rest of the server reads and writes A2A."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import Error, MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from hector.domain.errors import InvalidError
from hector.domain.messages import JsonValue

M = TypeVar("M", bound=Message)

_NOT_JSON = (Error, ValueError, OverflowError)
"""What `MessageToDict` raises of a number that is none, or a time that there is not."""


def to_json(told: bytes, made: type[Message]) -> Mapping[str, JsonValue]:
    """Without what has its default value, as protobuf sends it. Raises `InvalidError`."""
    try:
        message = made.FromString(told)
    except DecodeError:
        wanted = made.DESCRIPTOR.full_name
        raise InvalidError("request", f"is no message of protobuf; wanted a {wanted}") from None
    try:
        return MessageToDict(message)
    except _NOT_JSON as error:
        raise InvalidError(
            _without_json(message) or "request", f"cannot be written as JSON: {error}"
        ) from None


def _without_json(message: Message) -> str:
    """The path of the field that holds a number which is none, or a time that there is not."""
    for field, value in message.ListFields():
        for place, each in _messages(field, value):
            try:
                MessageToDict(each)
            except _NOT_JSON:
                own = each.DESCRIPTOR.full_name.startswith("google.")
                below = "" if own else _without_json(each)
                return f"{place}.{below}" if below else place
    return ""


def _messages(field: FieldDescriptor, value: Any) -> Iterator[tuple[str, Message]]:
    if field.message_type is None:
        return
    if not field.is_repeated:
        yield field.json_name, value
        return
    for number, each in enumerate(value):
        yield f"{field.json_name}[{number}]", each


def from_json(value: Mapping[str, JsonValue], made: type[M]) -> M:
    try:
        return ParseDict(dict(value), made())
    except (UnicodeEncodeError, ParseError):  # by the place where it stands
        # A provider may cut a stream in the middle of a surrogate pair, and protobuf has no word for halves.
        return ParseDict(_whole(value), made())


def _whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_whole(name): _whole(each) for name, each in value.items()}
        case list():
            return [_whole(each) for each in value]
        case _:
            return value
