"""The SQL of the operations, once for all databases.

Parameters have one meaning everywhere: agent, user, session (the key), turn, replica, epoch, seq, ...
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    Select,
    Text,
    and_,
    delete,
    exists,
    false,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy import bindparam as bind
from sqlalchemy.sql.elements import ColumnElement

from hector.storage.operations import Statement, now
from hector.storage.tables import (
    files,
    messages,
    push_configs,
    push_deliveries,
    replicas,
    sessions,
    summaries,
    tombstones,
    turn_events,
    turns,
)

S, M, T, R, E = sessions.c, messages.c, turns.c, replicas.c, turn_events.c
_ZERO: ColumnElement[int] = literal_column("0", Integer)
_ONE: ColumnElement[int] = literal_column("1", Integer)
_EMPTY_OBJECT: ColumnElement[str] = literal_column("'{}'", Text)


def _session_is() -> ColumnElement[bool]:
    return and_(S.agent_id == bind("agent"), S.user_id == bind("user"), S.id == bind("session"))


def _in_session(table: Any) -> ColumnElement[bool]:
    columns = table.c
    return and_(
        columns.agent_id == bind("agent"),
        columns.user_id == bind("user"),
        columns.session_id == bind("session"),
    )


def _turn_is() -> ColumnElement[bool]:
    return and_(T.agent_id == bind("agent"), T.user_id == bind("user"), T.id == bind("turn"))


def _turn_of_session() -> ColumnElement[bool]:
    """By the columns of both indexes: PostgreSQL, told of few rows, takes either."""
    return and_(_in_session(turns), T.id == bind("turn"))


def _big(name: str) -> Any:
    return bind(name, type_=BigInteger)


_KEY: dict[str, Any] = {"agent_id": bind("agent"), "user_id": bind("user"), "session_id": bind("session")}
_WAITS = and_(M.seq.is_(None), M.run_state.is_(None))

# --- sessions

LOCK_SESSION = Statement(
    select(
        S.lease_owner,
        S.lease_turn_id,
        S.lease_epoch,
        S.last_seq,
        S.next_ticket,
        S.waiting,
        S.incarnation,
        S.summarized_through_seq,
    )
    .where(_session_is())
    .with_for_update()
)
INSERT_SESSION = Statement(
    insert(sessions)
    .inline()
    .values(
        id=bind("session"),
        agent_id=bind("agent"),
        user_id=bind("user"),
        metadata=_EMPTY_OBJECT,
        created_at=now(),
        updated_at=now(),
        incarnation=bind("incarnation"),
        last_seq=_big("seq"),
        next_ticket=_ZERO,
        waiting=_ZERO,
        lease_owner=bind("replica"),
        lease_turn_id=bind("turn"),
        lease_epoch=_big("epoch"),
        summarized_through_seq=_ZERO,
        indexed_through_seq=_ZERO,
    )
)
TAKE_LEASE = Statement(
    update(sessions)
    .where(_session_is())
    .values(
        lease_owner=bind("replica"),
        lease_turn_id=bind("turn"),
        lease_epoch=_big("epoch"),
        last_seq=_big("seq"),
        waiting=bind("waiting", type_=Integer),
        updated_at=now(),
    )
)
ENQUEUE = Statement(
    update(sessions)
    .where(_session_is())
    .values(next_ticket=S.next_ticket + _ONE, waiting=S.waiting + _ONE, updated_at=now())
)
SET_WAITING = Statement(
    update(sessions).where(_session_is()).values(waiting=bind("waiting", type_=Integer), updated_at=now())
)
_guard = and_(
    _session_is(),
    S.lease_owner == bind("replica"),
    S.lease_turn_id == bind("turn"),
    S.lease_epoch == _big("epoch"),
    S.last_seq == _big("seq"),
)
GUARDED_ADVANCE = Statement(update(sessions).where(_guard).values(last_seq=_big("new_seq"), updated_at=now()))
GUARDED_RELEASE = Statement(
    update(sessions)
    .where(_guard)
    .values(last_seq=_big("new_seq"), lease_owner=null(), lease_turn_id=null(), updated_at=now())
)
GUARDED_HAND_OVER = Statement(
    update(sessions)
    .where(_guard)
    .values(lease_owner=null(), lease_epoch=S.lease_epoch + _ONE, updated_at=now())
)
TAKE_OVER_LEASE = Statement(
    update(sessions)
    .where(_session_is(), S.lease_turn_id == bind("turn"))
    .values(lease_owner=bind("replica"), lease_epoch=_big("epoch"), updated_at=now())
)
BREAK_LEASE = Statement(
    update(sessions)
    .where(_session_is(), S.lease_turn_id == bind("turn"))
    .values(lease_owner=null(), lease_turn_id=null(), lease_epoch=S.lease_epoch + _ONE, updated_at=now())
)
_SESSION_COLUMNS = (
    S.agent_id,
    S.user_id,
    S.id,
    S.last_seq,
    S.created_at,
    S.updated_at,
    S.lease_turn_id,
    S.waiting,
    S.metadata,
)
GET_SESSION = Statement(select(*_SESSION_COLUMNS).where(_session_is()))


def _list_sessions(*, agent: bool, user: bool, after: bool) -> Select[Any]:
    """By last change, newest first; the key makes the order total, so that pages neither skip nor repeat."""
    query = select(*_SESSION_COLUMNS)
    if agent:
        query = query.where(S.agent_id == bind("agent"))
    if user:
        query = query.where(S.user_id == bind("user"))
    if after:
        key = tuple_(S.agent_id, S.user_id, S.id)
        last = tuple_(bind("after_agent"), bind("after_user"), bind("after_session"))
        # The first condition alone is a range that an index can start from.
        query = query.where(S.updated_at <= bind("after_time"))
        query = query.where(or_(S.updated_at < bind("after_time"), key > last))
    order = (S.updated_at.desc(), S.agent_id, S.user_id, S.id)
    return query.order_by(*order).limit(bind("limit", type_=Integer))


LIST_SESSIONS = {
    (agent, user, after): Statement(_list_sessions(agent=agent, user=user, after=after))
    for agent in (False, True)
    for user in (False, True)
    for after in (False, True)
}

# --- messages

INSERT_USER_MESSAGE = Statement(
    insert(messages)
    .inline()
    .values(
        **_KEY,
        seq=_big("seq"),
        turn_id=bind("turn"),
        message_id=bind("message_id"),
        retry=bind("retry", type_=Integer),
        role=bind("role", type_=Integer),
        content=bind("content"),
        metadata=bind("metadata"),
        tokens=bind("tokens", type_=Integer),
        ticket=_big("ticket"),
        replica_id=bind("waits_at"),
        arrival_id=bind("arrival"),
        created_at=now(),
    )
)
INSERT_AGENT_MESSAGE = Statement(
    insert(messages)
    .inline()
    .values(
        **_KEY,
        seq=_big("seq"),
        turn_id=bind("turn"),
        retry=_ZERO,
        role=bind("role", type_=Integer),
        content=bind("content"),
        tokens=bind("tokens", type_=Integer),
        created_at=now(),
    )
)
_with_turn = and_(
    T.agent_id == M.agent_id, T.user_id == M.user_id, T.session_id == M.session_id, T.id == M.turn_id
)
FIND_MESSAGE = Statement(
    select(
        M.turn_id,
        M.arrival_id,
        M.retry,
        M.role,
        M.content,
        M.seq,
        M.ticket,
        M.run_state,
        T.state,
        T.reason,
        T.first_seq,
    )
    .join_from(messages, turns, _with_turn)
    .where(_in_session(messages), M.message_id == bind("message_id"))
    .order_by(M.retry.desc())
    .limit(_ONE)
)
FIRST_WAITING = Statement(
    select(M.turn_id, M.message_id, M.replica_id, T.state, M.created_at, now())
    .join_from(messages, turns, _with_turn)
    .where(_in_session(messages), _WAITS)
    .order_by(M.ticket)
    .limit(_ONE)
)
COUNT_AHEAD = Statement(
    select(func.count()).select_from(messages).where(_in_session(messages), _WAITS, M.ticket < _big("ticket"))
)
RUNNING_TURN = Statement(select(S.lease_turn_id).where(_session_is()))
QUEUE = Statement(select(M.turn_id, M.message_id).where(_in_session(messages), _WAITS).order_by(M.ticket))
_one_waiting = and_(
    _in_session(messages), _WAITS, M.turn_id == bind("turn"), M.message_id == bind("message_id")
)
IS_WAITING = Statement(select(M.id).where(_one_waiting))
WENT_TO = Statement(
    select(M.id).where(_in_session(messages), M.message_id == bind("message_id"), M.turn_id == bind("turn"))
)
HAS_LEFT = Statement(
    select(M.id).where(
        _in_session(messages),
        M.turn_id == bind("turn"),
        M.message_id == bind("message_id"),
        M.seq.is_(None),
        M.run_state == bind("run_state"),
    )
)
START_MESSAGE = Statement(update(messages).where(_one_waiting).values(seq=_big("seq"), replica_id=null()))
LEAVE_QUEUE = Statement(
    update(messages).where(_one_waiting).values(run_state=bind("run_state"), replica_id=null())
)
SET_RUN_STATE = Statement(
    update(messages).where(_in_session(messages), M.seq == _big("seq")).values(run_state=bind("run_state"))
)
# By seq alone: a turn goes on with runs that were another's.
_of_run = and_(_in_session(messages), M.seq >= _big("first_seq"), M.seq <= _big("last_seq"))
MARK_RUN = Statement(update(messages).where(_of_run).values(unanswered=bind("unanswered")))
_TAIL_COLUMNS = (
    M.seq,
    M.turn_id,
    M.message_id,
    M.role,
    M.content,
    M.metadata,
    M.tokens,
    M.unanswered,
)
MESSAGE_COLUMNS = (*_TAIL_COLUMNS, M.created_at)


def _page_before(columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Newest first, so that the page is the tail whatever the session's length."""
    return (
        select(*columns)
        .where(_in_session(messages), M.seq > _big("after"), M.seq < _big("before"))
        .order_by(M.seq.desc())
        .limit(bind("limit", type_=Integer))
    )


PAGE_BEFORE = Statement(_page_before(MESSAGE_COLUMNS))
TAIL_BEFORE = Statement(_page_before(_TAIL_COLUMNS))
"""... without the times, which the model is not sent: to read them costs a tenth of the tail."""
RUN_MESSAGES = Statement(select(*MESSAGE_COLUMNS).where(_of_run).order_by(M.seq))
_unstarted = (
    select(*MESSAGE_COLUMNS)
    .where(_in_session(messages), M.seq.is_(None), M.turn_id == bind("turn"))
    .order_by(M.ticket)
)
UNSTARTED_MESSAGES = Statement(_unstarted)
WAITING_MESSAGES = Statement(_unstarted.where(_WAITS))

# --- turns

_NEW_TURN: dict[str, Any] = _KEY | {
    "id": bind("turn"),
    "state": bind("state"),
    "retryable": false(),
    "attempt": bind("attempt", type_=Integer),
    "superseded": false(),
    "earlier_runs": bind("earlier_runs"),
    "input_tokens": _ZERO,
    "output_tokens": _ZERO,
    "created_at": now(),
}
INSERT_TURN = Statement(
    insert(turns)
    .inline()
    .values(
        **_NEW_TURN,
        epoch=_big("epoch"),
        first_seq=_big("seq"),
        replica_id=bind("replica"),
        started_at=now(),
    )
)
INSERT_WAITING_TURN = Statement(insert(turns).inline().values(**_NEW_TURN))
START_TURN = Statement(
    update(turns)
    .where(_turn_of_session())
    .values(
        state=bind("state"),
        reason=null(),
        attempt=bind("attempt", type_=Integer),
        epoch=_big("epoch"),
        first_seq=_big("seq"),
        last_seq=null(),
        earlier_runs=bind("earlier_runs"),
        replica_id=bind("replica"),
        started_at=now(),
        ended_at=null(),
    )
)
RUN_TURN_AGAIN = Statement(
    update(turns)
    .where(_turn_of_session())
    .values(attempt=T.attempt + _ONE, epoch=_big("epoch"), replica_id=bind("replica"))
)
_HANDED_OVER: ColumnElement[str] = literal_column("'handed over'", Text)
"""In place of a replica's id, which it never is: so the turn is found as one that nobody runs."""
LEAVE_TURN = Statement(update(turns).where(_turn_of_session()).values(replica_id=_HANDED_OVER))
COUNTED: dict[str, Any] = {
    "input_tokens": T.input_tokens + _big("input_tokens"),
    "output_tokens": T.output_tokens + _big("output_tokens"),
}
COUNT_USAGE = Statement(update(turns).where(_turn_of_session()).values(**COUNTED))
ENDED: dict[str, Any] = {
    "state": bind("state"),
    "reason": bind("reason"),
    "error": bind("error"),
    "retryable": bind("retryable"),
    "epoch": _big("epoch"),
    "last_seq": _big("last_seq"),
    **COUNTED,
    "replica_id": null(),
    "ended_at": now(),
}
END_TURN = Statement(update(turns).where(_turn_of_session()).values(**ENDED))
ENDED_AT = Statement(select(T.ended_at).where(_turn_of_session()))
SUPERSEDE_TURN = Statement(update(turns).where(_turn_of_session()).values(superseded=true()))
TURN_COLUMNS = (
    T.id,
    T.agent_id,
    T.user_id,
    T.session_id,
    T.state,
    T.reason,
    T.error,
    T.retryable,
    T.attempt,
    T.superseded,
    T.input_tokens,
    T.output_tokens,
    T.created_at,
    T.started_at,
    T.ended_at,
    T.epoch,
    T.first_seq,
    T.last_seq,
    T.earlier_runs,
)
GET_TURN = Statement(select(*TURN_COLUMNS).where(_turn_is()))

TURN_PROGRESS = Statement(select(T.session_id, T.state, T.attempt, T.earlier_runs).where(_turn_is()))

# --- events

_events_of_attempt = and_(
    E.agent_id == bind("agent"),
    E.user_id == bind("user"),
    E.turn_id == bind("turn"),
    E.attempt == bind("attempt", type_=Integer),
)
LAST_EVENT = Statement(select(func.max(E.last_number)).where(_events_of_attempt))
EVENTS_AFTER = Statement(
    select(E.first_number, E.content)
    .where(_events_of_attempt, E.last_number > _big("number"))
    .order_by(E.first_number)
)
INSERT_EVENTS = Statement(
    insert(turn_events)
    .inline()
    .values(
        **_KEY,
        turn_id=bind("turn"),
        attempt=bind("attempt", type_=Integer),
        first_number=_big("first_number"),
        last_number=_big("last_number"),
        content=bind("content"),
        created_at=now(),
    )
)
_turn_of_event = and_(T.agent_id == E.agent_id, T.user_id == E.user_id, T.id == E.turn_id)
FORGET_EVENTS = Statement(
    delete(turn_events).where(
        E.agent_id == bind("agent"),
        E.created_at < bind("before"),
        ~exists(select(T.id).where(_turn_of_event, or_(T.ended_at.is_(None), T.ended_at >= bind("before")))),
    )
)
DATABASE_TIME = Statement(select(now()))

# --- summaries and files

LATEST_SUMMARY = Statement(
    select(summaries.c.through_seq, summaries.c.content, summaries.c.tokens)
    .where(_in_session(summaries))
    .order_by(summaries.c.through_seq.desc())
    .limit(_ONE)
)
SUMMARY_STATE = Statement(
    select(S.incarnation, S.last_seq, S.summarized_through_seq, S.lease_turn_id).where(_session_is())
)
COVER = Statement(
    update(sessions)
    .where(
        _session_is(),
        S.incarnation == bind("incarnation"),
        S.summarized_through_seq == _big("covered"),
        S.last_seq >= _big("through_seq"),
    )
    .values(summarized_through_seq=_big("through_seq"))
)
INSERT_SUMMARY = Statement(
    insert(summaries)
    .inline()
    .values(
        **_KEY,
        through_seq=_big("through_seq"),
        content=bind("content"),
        tokens=bind("tokens", type_=Integer),
        created_at=now(),
    )
)
HAS_FILE = Statement(select(files.c.sha256).where(_in_session(files), files.c.sha256 == bind("sha256")))
INSERT_FILE = Statement(
    insert(files).inline().values(**_KEY, sha256=bind("sha256"), data=bind("data", type_=files.c.data.type))
)
GET_FILE = Statement(select(files.c.data).where(_in_session(files), files.c.sha256 == bind("sha256")))

# --- deletion

INSERT_TOMBSTONE = Statement(
    insert(tombstones).inline().values(**_KEY, incarnation=bind("incarnation"), created_at=now())
)
DELETE_SESSION = (
    *(
        Statement(delete(table).where(_in_session(table)))
        for table in (messages, turns, summaries, turn_events, push_configs, push_deliveries, files)
    ),
    Statement(delete(sessions).where(_session_is())),
)

# --- replicas

INSERT_REPLICA = Statement(
    insert(replicas)
    .inline()
    .values(id=bind("replica"), label=bind("label"), ttl_ms=_big("ttl_ms"), counter=_ZERO, started_at=now())
)
BEAT = Statement(
    update(replicas)
    .where(R.id == bind("replica"))
    .values(counter=R.counter + _ONE, lock_name=bind("lock", type_=R.lock_name.type))
)
LIST_REPLICAS = Statement(select(R.id, R.label, R.ttl_ms, R.counter, R.lock_name).order_by(R.id))
GET_REPLICA = Statement(select(R.id).where(R.id == bind("replica")))
DECLARE_DEAD = Statement(delete(replicas).where(R.id == bind("replica"), R.counter == _big("counter")))
RETIRE = Statement(delete(replicas).where(R.id == bind("replica")))
_running = select(T.agent_id, T.user_id, T.session_id, T.id).where(T.replica_id.is_not(None))
_waiting = select(M.agent_id, M.user_id, M.session_id, M.turn_id, M.message_id, M.created_at, now()).where(
    M.replica_id.is_not(None)
)
_alive = select(R.id)
RUNNING_OF = Statement(_running.where(T.replica_id == bind("replica")))
WAITING_OF = Statement(_waiting.where(M.replica_id == bind("replica")))
RUNNING_ORPHANS = Statement(_running.where(~exists(_alive.where(R.id == T.replica_id))))
WAITING_ORPHANS = Statement(_waiting.where(~exists(_alive.where(R.id == M.replica_id))))
