"""Stored messages as people read them, and as JSON."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from hector.cli.output import count
from hector.domain.messages import (
    Data,
    File,
    JsonValue,
    Message,
    ModelMessage,
    Part,
    StoredMessage,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.wire import part_json, timestamp


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def message_text(stored: StoredMessage) -> str:
    head = [f"#{stored.seq}" if stored.seq else "waiting", role_of(stored.message)]
    if stored.created_at:
        head.append(moment(stored.created_at))
    head.append(count(stored.tokens, "token"))
    lines = [" · ".join(head), *parts_text(stored.message.parts)]
    if stored.unanswered:
        lines.append(f"  [not answered: {stored.unanswered}]")
    return "\n".join(lines)


def parts_text(parts: Sequence[Part]) -> list[str]:
    """Lines, indented; thoughts are nobody's business."""
    said = [_part_text(part) for part in parts if not isinstance(part, Thinking)]
    return [f"  {line}" for text in said for line in text.splitlines()]


def role_of(message: Message) -> str:
    match message:
        case UserMessage():
            return "user"
        case ModelMessage():
            return "agent"
        case ToolMessage():
            return "tool"
        case _:
            assert_never(message)


def _part_text(part: Text | Data | File | ToolCall | ToolResult) -> str:
    match part:
        case Text(text=text):
            return text
        case Data(value=value):
            return json.dumps(value, ensure_ascii=False)
        case File(media_type=media_type, name=name, url=url):
            size = f"{_size(part)} bytes" if _size(part) is not None else ""
            return f"[file {', '.join(filter(None, [name, media_type, size, url]))}]"
        case ToolCall(name=name, arguments=arguments):
            return f"calls {name} {arguments}"
        case ToolResult(name=name, text=text, is_error=is_error):
            return f"{name} {'failed' if is_error else 'gave'}: {text}"
        case _:
            assert_never(part)


def _size(file: File) -> int | None:
    return len(file.data) if file.data is not None else file.size


def message_json(stored: StoredMessage) -> dict[str, JsonValue]:
    """As the server shows it, and how many tokens it takes."""
    made: dict[str, JsonValue] = {
        "seq": stored.seq,
        "role": role_of(stored.message),
        "taskId": stored.turn_id,
        "parts": parts_json(stored.message.parts),
        "createdAt": timestamp(stored.created_at) if stored.created_at else None,
        "tokens": stored.tokens,
    }
    if stored.message_id is not None:
        made["messageId"] = stored.message_id
    if stored.unanswered is not None:
        made["notAnswered"] = stored.unanswered
    return made


def parts_json(parts: Sequence[Part]) -> list[JsonValue]:
    return [_part_json(part) for part in parts if not isinstance(part, Thinking)]


def _part_json(part: Text | Data | File | ToolCall | ToolResult) -> dict[str, JsonValue]:
    match part:
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return {"toolCall": {"id": call_id, "name": name, "arguments": arguments}}
        case ToolResult(call_id=call_id, name=name, text=text, is_error=is_error):
            return {"toolResult": {"id": call_id, "name": name, "text": text, "isError": is_error}}
        case File(data=None, url=None):
            made: dict[str, JsonValue] = {"sha256": part.sha256, "size": part.size}
            named = {"filename": part.name, "mediaType": part.media_type}
            return made | {name: value for name, value in named.items() if value}
        case Text() | Data() | File():
            return part_json(Dialect.V1, part)
        case _:
            assert_never(part)
