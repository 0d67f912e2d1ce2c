"""`hector sessions`: look at what is stored, and delete it."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from hector.cli.config_file import keeps_sessions
from hector.cli.output import count, note, visible, visible_id
from hector.config.model import Config
from hector.domain.errors import NotFoundError
from hector.domain.ids import SessionKey
from hector.domain.messages import (
    Data,
    File,
    JsonValue,
    Message,
    ModelMessage,
    StoredMessage,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.domain.sessions import Session
from hector.runtime.build import open_runtime
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.wire import part_json, timestamp


async def list_sessions(
    config: Config, agent: str, *, user: str | None, limit: int, cursor: str | None, as_json: bool
) -> int:
    """Those of all users if `user` is None."""
    _mind_memory(config, agent)
    async with open_runtime(config, only_agent=agent, adopts=False) as runtime:
        page = await runtime.sessions(agent, user_id=user, limit=limit, cursor=cursor)
    if as_json:
        _print_json(
            {"sessions": [session_json(each) for each in page.sessions], "nextCursor": page.next_cursor}
        )
        return 0
    rows = [
        (
            _moment(each.updated_at),
            count(each.messages, "message"),
            _doing(each),
            visible_id(each.key.session_id),
            visible_id(each.key.user_id),
        )
        for each in page.sessions
    ]
    for row in aligned(rows):
        print(visible(row))
    if not page.sessions:
        note(f"agent {agent} has no sessions{'' if user is None else ' of this user'}")
    if page.next_cursor:
        note(f"more with --cursor={page.next_cursor}")
    return 0


async def show_session(
    config: Config, key: SessionKey, *, limit: int, before: int | None, as_json: bool
) -> int:
    _mind_memory(config, key.agent_id)
    async with open_runtime(config, only_agent=key.agent_id, adopts=False) as runtime:
        session = await runtime.session(key)
        messages = await runtime.messages(key, before=before, limit=limit)
    first = messages[0].seq if messages else None
    earlier = first if first is not None and first > 1 else None
    if as_json:
        shown: list[JsonValue] = [message_json(each) for each in messages]
        _print_json(session_json(session) | {"messages": shown, "before": earlier})
        return 0
    title = [
        f"session {visible_id(key.session_id)}",
        f"agent {key.agent_id}",
        count(session.messages, "message"),
    ]
    print(
        visible(
            " · ".join([*title, f"begun {_moment(session.created_at)}", *filter(None, [_doing(session)])])
        )
    )
    for stored in messages:
        print(visible(f"\n{message_text(stored)}"))
    if earlier:
        note(f"\n{count(earlier - 1, 'earlier message')}: --before={earlier}")
    return 0


async def delete_session(config: Config, key: SessionKey, *, confirm: bool) -> int:
    _mind_memory(config, key.agent_id)
    async with open_runtime(config, only_agent=key.agent_id, adopts=False) as runtime:
        session = await runtime.session(key)
        if confirm and not _confirmed(session):
            note("nothing was deleted")
            return 1
        if not await runtime.delete_session(key):
            raise NotFoundError("session", key.session_id)
    note(f"session {visible_id(key.session_id)} of agent {key.agent_id} is deleted")
    return 0


def _confirmed(session: Session) -> bool:
    import typer  # noqa: PLC0415 - loaded by the command line, and by nothing else here

    running = ", one of its turns runs and will be stopped" if session.running_turn_id else ""
    return typer.confirm(
        visible(
            f"Delete session {visible_id(session.key.session_id)} of agent {session.key.agent_id}"
            f" ({count(session.messages, 'message')}{running})?"
        ),
        err=True,
    )


def _mind_memory(config: Config, agent: str) -> None:
    if not keeps_sessions(config, agent):
        note(f"agent {agent} keeps its sessions in its server's memory, where this command does not see them")


# -------------------------------------------------------------------------------------- as text


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def _doing(session: Session) -> str:
    doing = ["a turn runs"] if session.running_turn_id else []
    if session.waiting:
        doing.append(f"{session.waiting} waiting")
    return ", ".join(doing)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be; empty ones are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]


def message_text(stored: StoredMessage) -> str:
    head = [f"#{stored.seq}" if stored.seq else "waiting", _role(stored.message)]
    if stored.created_at:
        head.append(_moment(stored.created_at))
    head.append(count(stored.tokens, "token"))
    lines = [" · ".join(head)]
    for part in stored.message.parts:
        if not isinstance(part, Thinking):
            lines += [f"  {line}" for line in _part_text(part).splitlines()]
    if stored.unanswered:
        lines.append(f"  [not answered: {stored.unanswered}]")
    return "\n".join(lines)


def _role(message: Message) -> str:
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


# -------------------------------------------------------------------------------------- as JSON


def _print_json(value: JsonValue) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def session_json(session: Session) -> dict[str, JsonValue]:
    """As the server shows it."""
    return {
        "agent": session.key.agent_id,
        "user": session.key.user_id,
        "id": session.key.session_id,
        "messageCount": session.messages,
        "waiting": session.waiting,
        "runningTaskId": session.running_turn_id,
        "createdAt": timestamp(session.created_at),
        "updatedAt": timestamp(session.updated_at),
    }


def message_json(stored: StoredMessage) -> dict[str, JsonValue]:
    """As the server shows it, and how many tokens it takes."""
    made: dict[str, JsonValue] = {
        "seq": stored.seq,
        "role": _role(stored.message),
        "taskId": stored.turn_id,
        "parts": [_part_json(part) for part in stored.message.parts if not isinstance(part, Thinking)],
        "createdAt": timestamp(stored.created_at) if stored.created_at else None,
        "tokens": stored.tokens,
    }
    if stored.message_id is not None:
        made["messageId"] = stored.message_id
    if stored.unanswered is not None:
        made["notAnswered"] = stored.unanswered
    return made


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
