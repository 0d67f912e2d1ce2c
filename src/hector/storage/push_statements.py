"""The SQL of push configurations and their deliveries; parameters as in `statements`."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    and_,
    delete,
    exists,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy import bindparam as bind
from sqlalchemy.sql.elements import ColumnElement

from hector.storage.operations import Statement, now
from hector.storage.tables import messages, push_configs, push_deliveries, replicas, turns

C, D, T, M, R = push_configs.c, push_deliveries.c, turns.c, messages.c, replicas.c
_ZERO: ColumnElement[int] = literal_column("0", Integer)
_ONE: ColumnElement[int] = literal_column("1", Integer)


def _big(name: str) -> Any:
    return bind(name, type_=BigInteger)


def _of_turn(columns: Any) -> ColumnElement[bool]:
    return and_(
        columns.agent_id == bind("agent"), columns.user_id == bind("user"), columns.turn_id == bind("turn")
    )


_KEY: dict[str, Any] = {
    "agent_id": bind("agent"),
    "user_id": bind("user"),
    "session_id": bind("session"),
    "turn_id": bind("turn"),
}
_config_is = and_(_of_turn(C), C.id == bind("config"))
_delivery_is = and_(_of_turn(D), D.config_id == bind("config"))
_claim_is = and_(_delivery_is, D.replica_id == bind("replica"), D.epoch == _big("epoch"))

# --- configurations

LIST_CONFIGS = Statement(select(C.id, C.content).where(_of_turn(C)).order_by(C.created_at, C.id))
GET_CONFIG = Statement(select(C.content).where(_config_is))
INSERT_CONFIG = Statement(
    insert(push_configs).inline().values(**_KEY, id=bind("config"), content=bind("content"), created_at=now())
)
DELETE_CONFIG = Statement(delete(push_configs).where(_config_is))

# --- deliveries

INSERT_DELIVERY = Statement(
    insert(push_deliveries)
    .inline()
    .values(**_KEY, config_id=bind("config"), since=_big("since"), epoch=_big("epoch"), failures=_ZERO)
)
DELETE_DELIVERY = Statement(delete(push_deliveries).where(_delivery_is))
_turn_of = and_(T.agent_id == D.agent_id, T.user_id == D.user_id, T.id == D.turn_id)
_DUE = (
    select(D.agent_id, D.user_id, D.session_id, D.turn_id, D.config_id, D.epoch)
    .outerjoin_from(push_deliveries, turns, _turn_of)
    .where(
        or_(D.next_try.is_(None), D.next_try <= now()),
        or_(
            D.seen_state.is_(None),
            T.state.is_(None),
            T.state != D.seen_state,
            # A turn that is in the same state again was run once more.
            T.attempt != D.seen_attempt,
        ),
        or_(
            D.replica_id.is_(None),
            D.replica_id == bind("replica"),
            ~exists(select(R.id).where(R.id == D.replica_id)),
        ),
    )
)
DUE = Statement(_DUE.order_by(D.failures, D.next_try).limit(bind("limit", type_=Integer)))
"""Those that fail come last."""
ANY_OPEN = Statement(select(D.turn_id).limit(_ONE))
OPEN_IN_SESSION = Statement(
    select(D.turn_id, C.id, C.content)
    .join_from(
        push_deliveries,
        push_configs,
        and_(
            C.agent_id == D.agent_id,
            C.user_id == D.user_id,
            C.turn_id == D.turn_id,
            C.id == D.config_id,
        ),
    )
    .join(turns, and_(_turn_of, T.ended_at.is_(None)))
    .where(D.agent_id == bind("agent"), D.user_id == bind("user"), D.session_id == bind("session"))
)
LOCK_DELIVERY = Statement(
    select(D.replica_id, D.epoch, D.since, D.told, D.failures, D.failing_since)
    .where(_delivery_is)
    .with_for_update()
)
CLAIM = Statement(
    update(push_deliveries).where(_delivery_is).values(replica_id=bind("replica"), epoch=D.epoch + _ONE)
)
TOLD = Statement(
    update(push_deliveries)
    .where(_claim_is)
    .values(told=_big("told"), failures=_ZERO, failing_since=null(), next_try=null())
)
SEEN = Statement(
    update(push_deliveries)
    .where(_delivery_is)
    .values(
        told=_big("told"),
        seen_state=bind("state"),
        seen_attempt=bind("attempt", type_=Integer),
        replica_id=null(),
        failures=_ZERO,
        failing_since=null(),
        next_try=null(),
    )
)
PUT_OFF = Statement(
    update(push_deliveries)
    .where(_delivery_is)
    .values(
        replica_id=null(),
        failures=D.failures + _ONE,
        failing_since=bind("failing_since", type_=D.failing_since.type),
        next_try=bind("next_try", type_=D.next_try.type),
    )
)
END_DELIVERY = Statement(delete(push_deliveries).where(_claim_is))

# --- what there is to tell

RUN_STARTS = Statement(
    select(M.seq, M.ticket, M.run_state, M.created_at).where(
        M.agent_id == bind("agent"),
        M.user_id == bind("user"),
        M.session_id == bind("session"),
        M.turn_id == bind("turn"),
        M.message_id.is_not(None),
        M.seq >= _big("first_seq"),
        M.seq <= _big("last_seq"),
    )
)
"""A user's messages of a turn: each began a run."""
