"""Messages as the JSON text of `messages.content`, and back.

A JSON array of parts, each an object whose first key says what it is:

    {"text": "..."}
    {"thinking": "...", "signature": "..."}
    {"data": ..., "media_type": "..."}
    {"file": {"media_type", "name", "bytes"|"url"|"sha256", "size"}}
    {"tool_call": {"id", "name", "arguments", "idempotent"}}
    {"tool_result": {"call_id", "name", "text", "is_error", "question"}}

Keys that would be null or false are left out; `metadata` may stand beside text, data and file. Bytes are
base64, or above 64 KB a reference to the table `files`, which holds each file once in its session.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, assert_never, cast

from hector.domain.messages import (
    Data,
    File,
    Message,
    Metadata,
    ModelMessage,
    ModelPart,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
    UserPart,
)

INLINE_BYTES = 64 * 1024
_KEPT_SIZE = 1024
"""Characters of a content up to which its message may be kept in memory."""

USER, AGENT, NEITHER = 1, 2, 0

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_PARSER = json.JSONDecoder()
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def role_of(message: Message) -> int:
    match message:
        case UserMessage():
            return USER
        case ModelMessage():
            return AGENT
        case ToolMessage():
            return NEITHER
        case _:
            assert_never(message)


def encode(message: Message) -> tuple[str, Mapping[str, bytes]]:
    """The content, and the files that are stored apart, by their sha256 in hex."""
    files: dict[str, bytes] = {}
    parts = [encode_part(part, files) for part in message.parts]
    return to_json(parts), files


def decode(
    role: int, content: str, metadata: str | None = None, files: Mapping[str, bytes] | None = None
) -> Message:
    """The message; a file that is not among `files` keeps its sha256 in place of its bytes."""
    # A session's tail is decoded at each turn, most of it each time anew, and stored messages never change.
    if files or len(content) > _KEPT_SIZE:
        return _decode(role, content, metadata, files or {})
    return _kept(role, content, metadata)


def _decode(role: int, content: str, metadata: str | None, files: Mapping[str, bytes]) -> Message:
    # Without the search for white space this takes half the time.
    stored, _ = _PARSER.raw_decode(content)
    parts = tuple([decode_part(part, files) for part in stored])
    match role:
        case 1:
            return UserMessage(cast("tuple[UserPart, ...]", parts), *decode_notes(metadata))
        case 2:
            return ModelMessage(cast("tuple[ModelPart, ...]", parts))
        case _:
            return ToolMessage(cast(ToolResult, parts[0]))


@lru_cache(maxsize=8192)  # some ten megabytes
def _kept(role: int, content: str, metadata: str | None) -> Message:
    return _decode(role, content, metadata, {})


def file_references(content: str) -> list[str]:
    """The sha256 of each file that the content keeps apart."""
    # The substring is cheap to look for, and parsing is only needed where it occurs.
    if '"sha256"' not in content:
        return []
    parts = json.loads(content)
    return [part["file"]["sha256"] for part in parts if "file" in part and "sha256" in part["file"]]


def encode_notes(message: UserMessage) -> str | None:
    """The text of `messages.metadata`: an object, or an array of that and the extensions if there are any."""
    metadata = dict(message.metadata) if message.metadata else None
    if message.extensions:
        return to_json([metadata, *message.extensions])
    return to_json(metadata) if metadata else None


def decode_notes(text: str | None) -> tuple[Metadata | None, tuple[str, ...]]:
    """The metadata, and the extensions."""
    match json.loads(text) if text else None:
        case [metadata, *extensions]:
            return metadata, tuple(extensions)
        case metadata:
            return cast("Metadata | None", metadata), ()


def storable(text: str) -> str:
    """Plain text with U+FFFD for what not every database stores: NUL, and halves of surrogate pairs."""
    return _HALF_PAIR.sub("\ufffd", text.replace("\0", "\ufffd"))


def to_json(value: object) -> str:
    """As it is stored everywhere: not ASCII-escaped, but for what is no Unicode text."""
    text = _JSON.encode(value)
    if text.isascii():
        return text
    # NUL is escaped by JSON itself; half of a surrogate pair is not, and is no Unicode text.
    return _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def encode_part(part: Part, files: dict[str, bytes]) -> dict[str, Any]:
    match part:
        case Text(text, metadata):
            return _compact({"text": text}, metadata=metadata)
        case Thinking(text, signature):
            return _compact({"thinking": text}, signature=signature)
        case Data(value, media_type, metadata):
            return _compact({"data": value}, media_type=media_type, metadata=metadata)
        case File():
            return _compact({"file": _encode_file(part, files)}, metadata=part.metadata)
        case ToolCall(id, name, arguments, idempotent):
            call = {"id": id, "name": name, "arguments": arguments}
            return {"tool_call": _compact(call, idempotent=idempotent)}
        case ToolResult(call_id, name, text, is_error, question):
            result = {"call_id": call_id, "name": name, "text": text}
            return {"tool_result": _compact(result, is_error=is_error, question=question)}
        case _:
            assert_never(part)


def _encode_file(file: File, files: dict[str, bytes]) -> dict[str, Any]:
    described = _compact({}, media_type=file.media_type, name=file.name)
    if file.data is None:
        return _compact(described, url=file.url, sha256=file.sha256, size=file.size)
    if len(file.data) <= INLINE_BYTES:
        return described | {"bytes": base64.b64encode(file.data).decode()}
    digest = hashlib.sha256(file.data).hexdigest()
    files[digest] = file.data
    return described | {"sha256": digest, "size": len(file.data)}


def decode_part(part: dict[str, Any], files: Mapping[str, bytes]) -> Part:
    match part:
        case {"text": text}:
            return Text(text, part.get("metadata"))
        case {"thinking": text}:
            return Thinking(text, part.get("signature"))
        case {"data": value}:
            return Data(value, part.get("media_type"), part.get("metadata"))
        case {"file": file}:
            return _decode_file(file, part.get("metadata"), files)
        case {"tool_call": call}:
            return ToolCall(call["id"], call["name"], call["arguments"], call.get("idempotent", False))
        case {"tool_result": result}:
            return ToolResult(
                result["call_id"],
                result["name"],
                result["text"],
                result.get("is_error", False),
                result.get("question"),
            )
        case _:
            raise ValueError(f"a stored part has none of the known kinds: {sorted(part)}")


def _decode_file(file: dict[str, Any], metadata: Metadata | None, files: Mapping[str, bytes]) -> File:
    described = File(file.get("media_type"), file.get("name"), url=file.get("url"), metadata=metadata)
    if "bytes" in file:
        return _with_data(described, base64.b64decode(file["bytes"]))
    if "sha256" in file:
        if (data := files.get(file["sha256"])) is not None:
            return _with_data(described, data)
        return File(
            described.media_type,
            described.name,
            metadata=metadata,
            sha256=file["sha256"],
            size=file.get("size"),
        )
    return described


def _with_data(file: File, data: bytes) -> File:
    return File(file.media_type, file.name, data, metadata=file.metadata)


def _compact(first: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return first | {name: value for name, value in rest.items() if value is not None and value is not False}
