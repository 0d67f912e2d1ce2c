"""The operations that only read: turns, tails, sessions."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hector.domain.ids import SessionKey
from hector.domain.memory import Summary, Tail, TailLimit
from hector.domain.messages import StoredMessage, Usage
from hector.domain.sessions import QueueState, Session
from hector.domain.turns import Reason, Turn, TurnState
from hector.storage import statements as sql
from hector.storage.codec import USER, decode, file_references
from hector.storage.operations import Operation, Statement, fetch

Parameters = dict[str, Any]

_FIRST_PAGE = 32
_EVERYTHING = 2**62


class TurnRow(NamedTuple):
    """What `sql.GET_TURN` reads."""

    id: str
    agent_id: str
    user_id: str
    session_id: str
    state: str
    reason: str | None
    error: str | None
    retryable: bool
    attempt: int
    superseded: bool
    input_tokens: int
    output_tokens: int
    created_at: Any
    started_at: Any
    ended_at: Any
    epoch: int | None
    first_seq: int | None
    last_seq: int | None
    earlier_runs: str | None

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.agent_id, self.user_id, self.session_id)

    @property
    def usage(self) -> Usage:
        return Usage(self.input_tokens, self.output_tokens)

    @property
    def past_runs(self) -> list[tuple[int, int]]:
        """First and last seq of each run before the last one; of all of them where it has not begun."""
        return [(first, last) for first, last in json.loads(self.earlier_runs or "[]")]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """... and of the last, which is open while it runs."""
        if self.first_seq is None:
            return self.past_runs
        return [*self.past_runs, (self.first_seq, self.last_seq or _EVERYTHING)]


class MessageRow(NamedTuple):
    """What `sql.MESSAGE_COLUMNS` are."""

    seq: int | None
    turn_id: str
    message_id: str | None
    role: int
    content: str
    metadata: str | None
    tokens: int
    unanswered: str | None
    created_at: Any = None


def key_parameters(key: SessionKey) -> Parameters:
    return {"agent": key.agent_id, "user": key.user_id, "session": key.session_id}


def time_of(value: Any) -> datetime | None:
    """SQLite keeps times as text; everywhere they are UTC without saying so."""
    if value is None:
        return None
    if isinstance(value, str):
        return datetime.fromisoformat(f"{value}+00:00")
    moment: datetime = value
    return moment.replace(tzinfo=UTC)


def seconds_between(earlier: Any, later: Any) -> float:
    """... two times that one statement read."""
    start, end = time_of(earlier), time_of(later)
    assert start, "the column is NOT NULL"
    assert end, "a clock tells a time"
    return (end - start).total_seconds()


def turn_row(agent_id: str, user_id: str, turn_id: str) -> Operation[TurnRow | None]:
    rows = yield from fetch(sql.GET_TURN, {"agent": agent_id, "user": user_id, "turn": turn_id})
    return TurnRow(*rows[0]) if rows else None


def read_turn(agent_id: str, user_id: str, turn_id: str) -> Operation[Turn | None]:
    """A turn with its messages."""
    row = yield from turn_row(agent_id, user_id, turn_id)
    if row is None:
        return None
    return turn_of(row, (yield from read_runs(row, row.runs, with_waiting=True)))


def must_read_turn(key: SessionKey, turn_id: str) -> Operation[Turn]:
    turn = yield from read_turn(key.agent_id, key.user_id, turn_id)
    assert turn, f"turn {turn_id} was found under the lock of its session"
    return turn


def turn_of(row: TurnRow, messages: Sequence[StoredMessage] = ()) -> Turn:
    return Turn(
        row.id,
        row.key,
        TurnState(row.state),
        row.reason,
        row.error,
        bool(row.retryable),
        row.attempt,
        bool(row.superseded),
        row.usage,
        tuple(messages),
        time_of(row.created_at),
        time_of(row.started_at),
        time_of(row.ended_at),
    )


def read_runs(
    row: TurnRow, runs: Sequence[tuple[int, int]], *, with_waiting: bool = False, with_files: bool = True
) -> Operation[list[StoredMessage]]:
    """A turn's messages in these ranges of seq; on demand those too that wait, after the others."""
    names = key_parameters(row.key) | {"turn": row.id}
    rows: list[MessageRow] = []
    for first, last in runs:
        rows += yield from _rows(sql.RUN_MESSAGES, names | {"first_seq": first, "last_seq": last})
    if with_waiting and row.first_seq is None:
        rows += yield from _rows(sql.UNSTARTED_MESSAGES, names)
    elif with_waiting and TurnState(row.state).paused:
        rows += yield from _rows(sql.WAITING_MESSAGES, names)
    return (yield from stored_messages(names, rows, with_files=with_files))


def read_tail(
    names: Mapping[str, Any],
    *,
    before: int,
    summarized: int,
    limit: TailLimit,
    without: Sequence[tuple[int, int]] = (),
    with_files: bool = True,
) -> Operation[Tail]:
    """The end of a session, for the model: bounded by the limit, whatever the session's length.

    The message that crosses the limit of tokens is the first one given, so that it can be cut to what fits.
    `without` are ranges of seq that are left out.
    """
    summary = (yield from latest_summary(names)) if summarized else None
    after = summary.through_seq if summary else 0
    newest_first: list[MessageRow] = []
    tokens = 0
    size = limit.messages if limit.tokens is None else min(limit.messages, _FIRST_PAGE)
    while len(newest_first) < limit.messages and (limit.tokens is None or tokens < limit.tokens):
        page = yield from _rows(sql.TAIL_BEFORE, {**names, "after": after, "before": before, "limit": size})
        for row in page:
            if any(first <= (row.seq or 0) <= last for first, last in without):
                continue
            newest_first.append(row)
            tokens += _sent_tokens(row)
            if len(newest_first) == limit.messages or (limit.tokens is not None and tokens >= limit.tokens):
                break
        if len(page) < size:
            break
        # Twice as many each time: few rounds, and never many more than are sent.
        before, size = page[-1].seq or 0, size * 2
    read = yield from stored_messages(names, newest_first[::-1], with_files=with_files)
    return Tail(tuple(read), summary)


def read_messages(key: SessionKey, before: int | None, limit: int) -> Operation[list[StoredMessage]]:
    """A page of a session's messages, oldest first, without the bytes of large files."""
    names = key_parameters(key) | {
        "after": 0,
        "before": _EVERYTHING if before is None else max(0, min(before, _EVERYTHING)),
        "limit": limit,
    }
    page = yield from _rows(sql.PAGE_BEFORE, names)
    return (yield from stored_messages(names, page[::-1], with_files=False))


def read_session(key: SessionKey) -> Operation[Session | None]:
    rows = yield from fetch(sql.GET_SESSION, key_parameters(key))
    return session_of(rows[0]) if rows else None


def session_of(row: Sequence[Any]) -> Session:
    agent, user, session, last_seq, created, updated, running, waiting, metadata = row
    created_at, updated_at = time_of(created), time_of(updated)
    assert created_at, "the column is NOT NULL"
    assert updated_at, "the column is NOT NULL"
    return Session(
        SessionKey(agent, user, session),
        last_seq,
        created_at,
        updated_at,
        running,
        waiting,
        json.loads(metadata),
    )


def queue_state(key: SessionKey) -> Operation[QueueState]:
    names = key_parameters(key)
    running = yield from fetch(sql.RUNNING_TURN, names)
    waiting = yield from fetch(sql.QUEUE, names)
    return QueueState(running[0][0] if running else None, [(turn, message) for turn, message in waiting])


def list_sessions(
    agent_id: str | None, user_id: str | None, limit: int, after: Mapping[str, Any] | None
) -> Operation[list[Session]]:
    statement = sql.LIST_SESSIONS[agent_id is not None, user_id is not None, after is not None]
    names = {"agent": agent_id, "user": user_id, "limit": limit, **(after or {})}
    return [session_of(row) for row in (yield from fetch(statement, names))]


def _sent_tokens(row: MessageRow) -> int:
    """Of an unanswered turn only the user's message is sent, of a superseded one nothing."""
    if row.unanswered is None:
        return row.tokens
    return row.tokens if row.role == USER and row.unanswered != Reason.SUPERSEDED else 0


def latest_summary(names: Mapping[str, Any]) -> Operation[Summary | None]:
    rows = yield from fetch(sql.LATEST_SUMMARY, names)
    return Summary(*rows[0]) if rows else None


def _rows(statement: Statement, names: Mapping[str, Any]) -> Operation[list[MessageRow]]:
    return [MessageRow(*row) for row in (yield from fetch(statement, names))]


def stored_messages(
    names: Mapping[str, Any], rows: Sequence[MessageRow], *, with_files: bool
) -> Operation[list[StoredMessage]]:
    files: dict[str, bytes] = {}
    for row in rows if with_files else ():
        for digest in file_references(row.content):
            if digest not in files:
                for (data,) in (yield from fetch(sql.GET_FILE, {**names, "sha256": digest})):
                    files[digest] = bytes(data)
    return [
        StoredMessage(
            decode(row.role, row.content, row.metadata, files),
            row.seq,
            row.turn_id,
            row.tokens,
            row.message_id,
            row.unanswered,
            time_of(row.created_at),
        )
        for row in rows
    ]
