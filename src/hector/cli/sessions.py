"""`hector sessions`: look at what is stored, and delete it."""

import json
from collections.abc import Sequence

from hector.cli.config_file import keeps_sessions
from hector.cli.output import count, note, visible, visible_id
from hector.cli.transcript import message_json, message_text, moment
from hector.config.model import Config
from hector.domain.errors import NotFoundError
from hector.domain.ids import SessionKey
from hector.domain.messages import JsonValue
from hector.domain.sessions import Session
from hector.runtime.build import open_runtime
from hector.server.a2a.wire import timestamp


async def list_sessions(
    config: Config, agent: str, *, user: str | None, limit: int, cursor: str | None, as_json: bool
) -> int:
    """Those of all users if `user` is None."""
    mind_memory(config, agent)
    async with open_runtime(config, only_agent=agent, adopts=False) as runtime:
        page = await runtime.sessions(agent, user_id=user, limit=limit, cursor=cursor)
    if as_json:
        print_json(
            {"sessions": [session_json(each) for each in page.sessions], "nextCursor": page.next_cursor}
        )
        return 0
    rows = [
        (
            moment(each.updated_at),
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
    mind_memory(config, key.agent_id)
    async with open_runtime(config, only_agent=key.agent_id, adopts=False) as runtime:
        session = await runtime.session(key)
        messages = await runtime.messages(key, before=before, limit=limit)
    first = messages[0].seq if messages else None
    earlier = first if first is not None and first > 1 else None
    if as_json:
        shown: list[JsonValue] = [message_json(each) for each in messages]
        print_json(session_json(session) | {"messages": shown, "before": earlier})
        return 0
    title = [
        f"session {visible_id(key.session_id)}",
        f"agent {key.agent_id}",
        count(session.messages, "message"),
    ]
    print(
        visible(" · ".join([*title, f"begun {moment(session.created_at)}", *filter(None, [_doing(session)])]))
    )
    for stored in messages:
        print(visible(f"\n{message_text(stored)}"))
    if earlier:
        note(f"\n{count(earlier - 1, 'earlier message')}: --before={earlier}")
    return 0


async def delete_session(config: Config, key: SessionKey, *, confirm: bool) -> int:
    mind_memory(config, key.agent_id)
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


def mind_memory(config: Config, agent: str) -> None:
    if not keeps_sessions(config, agent):
        note(f"agent {agent} keeps its sessions in its server's memory, where this command does not see them")


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


def print_json(value: JsonValue) -> None:
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
