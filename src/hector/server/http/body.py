"""The body of a request: bytes within a limit, and JSON without surprises."""

import codecs
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from hector.domain.errors import InvalidError
from hector.domain.messages import JsonValue
from hector.server.a2a.fields import kind_of
from hector.server.statuses import BodyTooLargeError, MediaTypeError, ParseError

_LONGEST_NAME = 64
"""Characters of a key that an error repeats."""
_MEDIA_TYPES = frozenset({b"application/json", b"application/a2a+json"})


def check_media_type(header: bytes | None) -> None:
    """Absent is taken for JSON. Raises `MediaTypeError`."""
    if header is None or header in _MEDIA_TYPES:
        return
    if header.partition(b";")[0].strip().lower() not in _MEDIA_TYPES:
        raise MediaTypeError(header.decode("latin-1"))


async def read_body(request: Request, limit: int) -> bytes:
    """Count while reading: a Content-Length may be missing or wrong. Raises `BodyTooLargeError`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        event = await request.receive()
        if event["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = event.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        more = event.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def parse_object(body: bytes) -> Mapping[str, JsonValue]:
    """As `parse_json`, of an object. Raises `InvalidError`."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InvalidError("body", f"is {kind_of(value)}; wanted an object with a message")
    return value


def parse_json(body: bytes) -> JsonValue:
    """JSON in UTF-8, with a byte order mark or without. Raises `ParseError`."""
    text = body.removeprefix(codecs.BOM_UTF8)
    try:
        # Not left to json.loads, which also takes UTF-16 and UTF-32.
        return _DECODER.decode(text.decode())  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        raise ParseError("body", f"is not UTF-8 at byte {error.start + len(body) - len(text)}") from None
    except json.JSONDecodeError as error:
        raise ParseError(
            "body", f"is not JSON at line {error.lineno}, column {error.colno}: {_lower(error.msg)}"
        ) from None
    except RecursionError:
        raise ParseError("body", "is nested too deeply") from None
    except ValueError:
        # Python refuses to read integers of thousands of digits.
        raise ParseError("body", "holds a number that is too long") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two equal keys counts differs from parser to parser, also between a proxy and us."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ParseError("body", f"has an object that names the key {_cut(twice)!r} twice")
    return found


def _no_number(word: str) -> NoReturn:
    raise ParseError("body", f"holds {word}, which is no JSON number")


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError("body", f"is larger than {limit} bytes, the limit (server.limits.body)")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)
