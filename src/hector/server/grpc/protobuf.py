"""Between protobuf's messages and its JSON, in which the rest of the server reads and writes A2A."""

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import Error, MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from hector.domain.errors import InvalidError
from hector.domain.messages import JsonValue

M = TypeVar("M", bound=Message)


def to_json(told: bytes, made: type[Message]) -> Mapping[str, JsonValue]:
    """Without what has its default value, as protobuf sends it. Raises `InvalidError`."""
    name = made.DESCRIPTOR.full_name
    try:
        return MessageToDict(made.FromString(told))
    except DecodeError:
        raise InvalidError("request", f"is no message of protobuf; wanted a {name}") from None
    except (
        Error,
        ValueError,
        OverflowError,
    ) as error:  # of a time that there is not, or a number that is none
        raise InvalidError("request", f"is no {name} that can be written as JSON: {error}") from None


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
