"""Whole transactions in one statement each, for databases whose WITH may write: PostgreSQL.

They do the common case alone: a message for a free session, and the last message of a turn that completed.
Where their condition fails they change nothing, and the operations of `turns` and `running` find out why.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    String,
    Text,
    Update,
    and_,
    exists,
    insert,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy import bindparam as bind
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import CTE

from hector.domain.events import Told
from hector.domain.memory import TailLimit
from hector.domain.messages import StoredMessage
from hector.domain.turns import Arrival, Begun, Lease, NewMessage, Outcome, Turn, TurnState
from hector.storage import statements as sql
from hector.storage.codec import encode, encode_notes, role_of
from hector.storage.events import batch
from hector.storage.operations import Operation, Statement, execute, fetch, now
from hector.storage.reading import key_parameters, read_tail
from hector.storage.running import (
    ended_turn,
    guard_parameters,
    outcome_parameters,
    usage_of,
    usage_parameters,
)
from hector.storage.tables import messages, sessions, turn_events, turns

S, T, E = sessions.c, turns.c, turn_events.c
_FALSE: ColumnElement[Any] = literal_column("false")
_IS_NEW: ColumnElement[Any] = literal_column("xmax = 0").label("is_new")
"""A row that was just inserted has no transaction that locked or replaced it."""
_EMPTY: ColumnElement[Any] = literal_column("'{}'", Text)


def _number(value: int) -> ColumnElement[Any]:
    return literal_column(str(value), Integer)


def _word(name: str) -> Any:
    return bind(name, type_=String)


def _big(name: str) -> Any:
    return bind(name, type_=BigInteger)


_KEY = {"agent_id": _word("agent"), "user_id": _word("user"), "session_id": _word("session")}


def _insert(table: Any, source: CTE, name: str, **values: Any) -> CTE:
    """One row for each of the source's, which is one or none."""
    rows = select(*values.values()).select_from(source)
    return insert(table).inline().from_select(list(values), rows).cte(name)


# --- a turn begins

_new_session = postgresql.insert(sessions).values(
    id=_word("session"),
    agent_id=_word("agent"),
    user_id=_word("user"),
    metadata=_EMPTY,
    created_at=now(),
    updated_at=now(),
    incarnation=_word("incarnation"),
    last_seq=_number(1),
    next_ticket=_number(0),
    waiting=_number(0),
    lease_owner=_word("replica"),
    lease_turn_id=_word("turn"),
    lease_epoch=_number(1),
    summarized_through_seq=_number(0),
    indexed_through_seq=_number(0),
)
_leased = (
    _new_session.on_conflict_do_update(
        index_elements=[S.agent_id, S.user_id, S.id],
        set_={
            "lease_owner": _new_session.excluded.lease_owner,
            "lease_turn_id": _new_session.excluded.lease_turn_id,
            "lease_epoch": S.lease_epoch + _number(1),
            "last_seq": S.last_seq + _number(1),
            "updated_at": now(),
        },
        where=and_(S.lease_turn_id.is_(None), S.waiting == _number(0)),
    )
    .returning(S.lease_epoch, S.last_seq, S.summarized_through_seq, _IS_NEW)
    .cte("leased")
)
_begun = _insert(
    turns,
    _leased,
    "begun",
    **_KEY,
    id=_word("turn"),
    state=_word("state"),
    retryable=_FALSE,
    attempt=_number(1),
    epoch=_leased.c.lease_epoch,
    superseded=_FALSE,
    first_seq=_leased.c.last_seq,
    input_tokens=_number(0),
    output_tokens=_number(0),
    replica_id=_word("replica"),
    created_at=now(),
    started_at=now(),
)
_asked = _insert(
    messages,
    _leased,
    "asked",
    **_KEY,
    seq=_leased.c.last_seq,
    turn_id=_word("turn"),
    message_id=_word("message_id"),
    retry=_number(0),
    role=bind("role", type_=Integer),
    content=bind("content", type_=Text),
    metadata=bind("metadata", type_=Text),
    tokens=bind("tokens", type_=Integer),
    created_at=now(),
)
_BEGIN = Statement(
    select(
        _leased.c.lease_epoch, _leased.c.last_seq, _leased.c.summarized_through_seq, _leased.c.is_new
    ).add_cte(_begun, _asked)
)

# --- a turn goes on, and ends

_guarded = and_(
    S.agent_id == _word("agent"),
    S.user_id == _word("user"),
    S.id == _word("session"),
    S.lease_owner == _word("replica"),
    S.lease_turn_id == _word("turn"),
    S.lease_epoch == _big("epoch"),
    S.last_seq == _big("seq"),
)
_advanced = (
    update(sessions)
    .where(_guarded)
    .values(last_seq=_big("new_seq"), updated_at=now())
    .returning(S.last_seq)
    .cte("held")
)
_released = (
    update(sessions)
    .where(_guarded)
    .values(last_seq=_big("new_seq"), lease_owner=null(), lease_turn_id=null(), updated_at=now())
    .returning(S.last_seq)
    .cte("held")
)


def _answered(held: CTE) -> CTE:
    return _insert(
        messages,
        held,
        "answered",
        **_KEY,
        seq=held.c.last_seq,
        turn_id=_word("turn"),
        retry=_number(0),
        role=bind("role", type_=Integer),
        content=bind("content", type_=Text),
        tokens=bind("tokens", type_=Integer),
        created_at=now(),
    )


def _turn_of(held: CTE) -> Update:
    return update(turns).where(
        T.agent_id == _word("agent"),
        T.user_id == _word("user"),
        T.id == _word("turn"),
        T.session_id == _word("session"),
        held.c.last_seq.is_not(None),
    )


_counted = _turn_of(_advanced).values(**sql.COUNTED).cte("counted")
_ended = _turn_of(_released).values(**sql.ENDED).returning(T.ended_at).cte("ended")
_APPEND = Statement(select(_advanced.c.last_seq).add_cte(_answered(_advanced)))
_APPEND_AND_COUNT = Statement(select(_advanced.c.last_seq).add_cte(_answered(_advanced), _counted))
_END = Statement(
    select(_released.c.last_seq, select(_ended.c.ended_at).scalar_subquery()).add_cte(_answered(_released))
)


# --- what a turn tells

_holding = (
    select(_number(1).label("one"))
    .where(
        S.agent_id == _word("agent"),
        S.user_id == _word("user"),
        S.id == _word("session"),
        S.lease_owner == _word("replica"),
        S.lease_turn_id == _word("turn"),
        S.lease_epoch == _big("epoch"),
    )
    .with_for_update(key_share=True)
    .cte("holding")
)
_kept = exists(
    select(E.turn_id).where(
        E.agent_id == _word("agent"),
        E.user_id == _word("user"),
        E.turn_id == _word("turn"),
        E.attempt == bind("attempt", type_=Integer),
        E.last_number >= _big("first_number"),
    )
)
_batch = {
    **_KEY,
    "turn_id": _word("turn"),
    "attempt": bind("attempt", type_=Integer),
    "first_number": _big("first_number"),
    "last_number": _big("last_number"),
    "content": bind("content", type_=Text),
    "created_at": now(),
}
_KEEP_EVENTS = Statement(
    insert(turn_events)
    .inline()
    .from_select(list(_batch), select(*_batch.values()).select_from(_holding).where(~_kept))
)


def add_events(lease: Lease, events: Sequence[Told]) -> Operation[bool | None]:
    """Keep a batch of which nothing is kept yet."""
    names = guard_parameters(lease) | {"attempt": lease.attempt} | batch(events)
    return True if (yield from execute(_KEEP_EVENTS, names)) == 1 else None


def begin(arrival: Arrival, limit: TailLimit) -> Operation[Begun | None]:
    """Begin the turn of a message that names no task, in a session that is free or new.

    None, or a violated key, if it is neither. The tail is read by a statement of its own: one that waited for
    the session's row would read what was there before it waited.
    """
    content, files = encode(arrival.message)
    if files or arrival.resumes or arrival.push:
        return None
    names = key_parameters(arrival.key)
    message = arrival.message
    rows = yield from fetch(
        _BEGIN,
        names
        | {
            "replica": arrival.replica_id,
            "turn": arrival.turn_id,
            "state": TurnState.WORKING.value,
            "incarnation": secrets.token_hex(16),
            "message_id": arrival.message_id,
            "role": role_of(message),
            "content": content,
            "metadata": encode_notes(message),
            "tokens": arrival.tokens,
        },
    )
    if not rows:
        return None
    epoch, seq, summarized, is_new = rows[0]
    lease = Lease(arrival.key, arrival.turn_id, arrival.replica_id, epoch, 1, seq, seq)
    tail = yield from read_tail(names, before=seq, summarized=summarized, limit=limit)
    stored = StoredMessage(message, seq, arrival.turn_id, arrival.tokens, arrival.message_id)
    return Begun(lease, tail, (stored,), is_new, seq - 1)


def append(lease: Lease, new: NewMessage) -> Operation[int | None]:
    """Add one message to the running turn; its seq."""
    content, files = encode(new.message)
    if files:
        return None
    usage = usage_of([new])
    names = _one_more(lease, new, content) | usage_parameters(usage)
    rows = yield from fetch(_APPEND_AND_COUNT if usage else _APPEND, names)
    return lease.seq + 1 if rows else None


def end(lease: Lease, new: NewMessage, outcome: Outcome) -> Operation[Turn | None]:
    """Add the last message of a turn that completed, and release its lease."""
    content, files = encode(new.message)
    if files:
        return None
    ended = outcome_parameters(outcome) | {"last_seq": lease.seq + 1}
    rows = yield from fetch(_END, _one_more(lease, new, content) | ended)
    return ended_turn(lease, [new], outcome, rows[0][1]) if rows else None


def _one_more(lease: Lease, new: NewMessage, content: str) -> dict[str, Any]:
    return guard_parameters(lease) | {
        "new_seq": lease.seq + 1,
        "role": role_of(new.message),
        "content": content,
        "tokens": new.tokens,
    }
