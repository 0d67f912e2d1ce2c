"""The operations on push configurations, and on what is still to be told to each.

`push_deliveries` has a row for each configuration that may still have something to be told. It has, where the
turn is not as it stood when all was told (`seen_state`, `seen_attempt`); what that is, `notices` finds in the
turn's rows.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hector.domain.errors import InvalidError
from hector.domain.ids import SessionKey
from hector.domain.messages import ModelMessage, StoredMessage
from hector.domain.notices import Claim, Due, DuePushes, Notice, Place, PushTarget
from hector.domain.push import MAX_CONFIGS, PushConfig
from hector.domain.turns import Turn, TurnState
from hector.storage import push_statements as sql
from hector.storage.operations import Operation, execute, fetch
from hector.storage.reading import Parameters, TurnRow, key_parameters, read_runs, time_of, turn_of, turn_row
from hector.storage.rows import lock
from hector.storage.statements import DATABASE_TIME

_FIRST_EPOCHS = 2**40
"""So many to begin with: a claim on a configuration that was replaced is none on the new one."""


class _Delivery(NamedTuple):
    """What `sql.LOCK_DELIVERY` reads."""

    replica_id: str | None
    epoch: int
    since: int
    told: int | None
    failures: int
    failing_since: Any


class _RunStart(NamedTuple):
    """What `sql.RUN_STARTS` reads."""

    seq: int
    ticket: int | None
    run_state: str | None
    created_at: Any


# --- configurations


def set_push(
    agent_id: str, user_id: str, turn_id: str, config: PushConfig, epoch: int
) -> Operation[PushConfig | None]:
    turn = yield from _locked_turn(agent_id, user_id, turn_id)
    if turn is None:
        return None
    names = key_parameters(turn.key) | {"turn": turn_id}
    return (yield from store_config(names, config, since=_place_of(turn) - 1, epoch=epoch))


def store_config(
    names: Parameters, config: PushConfig, *, since: int, epoch: int | None = None
) -> Operation[PushConfig]:
    """Under the lock of the session's row."""
    config = replace(config, id=config.id or names["turn"])
    ids = {name for name, _ in (yield from fetch(sql.LIST_CONFIGS, names))}
    names = names | {"config": config.id}
    if config.id in ids:
        yield from execute(sql.DELETE_CONFIG, names)
        yield from execute(sql.DELETE_DELIVERY, names)
    elif len(ids) >= MAX_CONFIGS:
        raise InvalidError(
            "task", f"has {len(ids)} push notification configurations, which is its limit; delete one"
        )
    yield from execute(sql.INSERT_CONFIG, names | {"content": _encode(config)})
    yield from execute(
        sql.INSERT_DELIVERY, names | {"since": since, "epoch": first_epoch() if epoch is None else epoch}
    )
    return config


def first_epoch() -> int:
    return secrets.randbelow(_FIRST_EPOCHS)


def list_configs(agent_id: str, user_id: str, turn_id: str) -> Operation[list[PushConfig] | None]:
    if (yield from turn_row(agent_id, user_id, turn_id)) is None:
        return None
    rows = yield from fetch(sql.LIST_CONFIGS, {"agent": agent_id, "user": user_id, "turn": turn_id})
    return [_decode(name, content) for name, content in rows]


def delete_config(agent_id: str, user_id: str, turn_id: str, config_id: str) -> Operation[bool]:
    if (yield from _locked_turn(agent_id, user_id, turn_id)) is None:
        return False
    names = {"agent": agent_id, "user": user_id, "turn": turn_id, "config": config_id}
    yield from execute(sql.DELETE_CONFIG, names)
    yield from execute(sql.DELETE_DELIVERY, names)
    return True


def _locked_turn(agent_id: str, user_id: str, turn_id: str) -> Operation[TurnRow | None]:
    """With the lock of its session's row, so that it neither goes on nor is deleted meanwhile."""
    found = yield from turn_row(agent_id, user_id, turn_id)
    if found is None or (yield from lock(key_parameters(found.key))) is None:
        return None
    return (yield from turn_row(agent_id, user_id, turn_id))


def _encode(config: PushConfig) -> str:
    content = {
        "url": config.url,
        "dialect": config.dialect,
        "token": config.token,
        "schemes": list(config.schemes),
        "credentials": config.credentials,
    }
    return json.dumps({name: value for name, value in content.items() if value})


def _decode(config_id: str, content: str) -> PushConfig:
    stored = json.loads(content)
    return PushConfig(
        config_id,
        stored["url"],
        stored["dialect"],
        stored.get("token"),
        tuple(stored.get("schemes", ())),
        stored.get("credentials"),
    )


# --- deliveries


def due(replica_id: str, limit: int) -> Operation[DuePushes]:
    rows = yield from fetch(sql.DUE, {"replica": replica_id, "limit": limit})
    found = [
        Due(PushTarget(SessionKey(agent, user, session), turn, config), epoch)
        for agent, user, session, turn, config, epoch in rows
    ]
    return DuePushes(found, bool(found) or bool((yield from fetch(sql.ANY_OPEN, {}))))


def claim(due: Due, replica_id: str) -> Operation[Claim | None]:
    names = _names(due.target)
    delivery = yield from _lock(names)
    if delivery is None:
        return None
    epoch = due.epoch + 1
    # Otherwise an earlier run of this operation took it, whose commit got no answer.
    if (delivery.replica_id, delivery.epoch) != (replica_id, epoch):
        # Whoever had it when it was found due was dead, or it was nobody: that does not change again.
        if delivery.epoch != due.epoch:
            return None
        yield from execute(sql.CLAIM, names | {"replica": replica_id})
    stored = yield from fetch(sql.GET_CONFIG, names)
    turn = yield from _turn(due.target)
    if not stored or turn is None:
        # What an older release left, which knows nothing of deliveries when it deletes a session.
        yield from execute(sql.DELETE_DELIVERY, names)
        return None
    told = delivery.since if delivery.told is None else delivery.told
    found = yield from notices(turn, told)
    if not found:
        yield from _close(names, turn, told)
        return None
    config = _decode(due.target.config_id, stored[0][0])
    return Claim(due.target, replica_id, epoch, config, found, delivery.told is None, delivery.failures)


def told(claim: Claim, place: int) -> Operation[Claim | None]:
    names = _names(claim.target)
    if (yield from execute(sql.TOLD, names | _guard(claim) | {"told": place})) != 1:
        return None
    turn = yield from _turn(claim.target)
    if turn is None:
        yield from execute(sql.DELETE_DELIVERY, names)
        return None
    rest = yield from notices(turn, place)
    if not rest:
        yield from _close(names, turn, place)
        return None
    return replace(claim, notices=rest, first=False, failures=0)


def put_off(
    claim: Claim, delay: float, give_up_after: float, time_argument: Callable[[datetime], Any]
) -> Operation[bool]:
    names = _names(claim.target)
    delivery = yield from _lock(names)
    if delivery is None or (delivery.replica_id, delivery.epoch) != (claim.owner, claim.epoch):
        return True
    ((clock,),) = yield from fetch(DATABASE_TIME, {})
    now = time_of(clock)
    assert now, "a clock tells a time"
    failing_since = time_of(delivery.failing_since) or now
    if (now - failing_since).total_seconds() < give_up_after:
        times = {
            "failing_since": time_argument(failing_since),
            "next_try": time_argument(now + timedelta(seconds=delay)),
        }
        yield from execute(sql.PUT_OFF, names | times)
        return True
    turn = yield from _turn(claim.target)
    if turn is None:
        yield from execute(sql.DELETE_DELIVERY, names)
    else:
        yield from _close(names, turn, _place_of(turn))
    return False


def end(claim: Claim) -> Operation[None]:
    yield from execute(sql.END_DELIVERY, _names(claim.target) | _guard(claim))


def open_in_session(key: SessionKey) -> Operation[list[tuple[str, PushConfig]]]:
    rows = yield from fetch(sql.OPEN_IN_SESSION, key_parameters(key))
    return [(turn, _decode(name, content)) for turn, name, content in rows]


def _names(target: PushTarget) -> Parameters:
    return key_parameters(target.key) | {"turn": target.turn_id, "config": target.config_id}


def _guard(claim: Claim) -> Parameters:
    return {"replica": claim.owner, "epoch": claim.epoch}


def _turn(target: PushTarget) -> Operation[TurnRow | None]:
    return (yield from turn_row(target.key.agent_id, target.key.user_id, target.turn_id))


def _lock(names: Parameters) -> Operation[_Delivery | None]:
    rows = yield from fetch(sql.LOCK_DELIVERY, names)
    return _Delivery(*rows[0]) if rows else None


def _close(names: Parameters, turn: TurnRow, place: int) -> Operation[None]:
    """All is told of the turn as it stands."""
    if TurnState(turn.state).terminal:
        yield from execute(sql.DELETE_DELIVERY, names)
    else:
        seen = {"told": place, "state": turn.state, "attempt": turn.attempt}
        yield from execute(sql.SEEN, names | seen)


# --- what there is to tell


def notices(turn: TurnRow, after: int) -> Operation[list[Notice]]:
    """What a turn has to tell behind a place."""
    if after >= _place_of(turn):
        return []
    state = TurnState(turn.state)
    runs = turn.runs
    starts = yield from _run_starts(turn)
    found = []

    def add(place: int, state: TurnState, at: Any, messages: Sequence[StoredMessage] = ()) -> None:
        # As it stood: nothing of how it went on.
        then = replace(
            turn_of(turn._replace(state=state.value, reason=None, error=None, retryable=False)),
            started_at=at,
            ended_at=None,
            messages=tuple(messages),
        )
        found.append(Notice(place, then))

    own = [start for start in starts if start]
    if turn.first_seq is None or (own and own[0].ticket is not None):
        add(Place.SUBMITTED, TurnState.SUBMITTED, time_of(turn.created_at))
    for run, ((_, last_seq), start) in enumerate(zip(runs, starts, strict=True), 1):
        if start is None:
            continue  # another turn's, which told it
        is_last = run == len(runs)
        began = turn.started_at if is_last else start.created_at
        add(Place.working(run), TurnState.WORKING, time_of(began))
        if after >= Place.paused(run) or (is_last and state is TurnState.WORKING):
            continue
        said = yield from read_runs(turn, [(last_seq, last_seq)])
        if not is_last or state.paused or (state is TurnState.CANCELED and _asks(said)):
            paused = TurnState(start.run_state or (state if state.paused else TurnState.INPUT_REQUIRED))
            at = said[-1].created_at if said else time_of(turn.ended_at)
            add(Place.paused(run), paused, at, said)
    if state.terminal:
        # Of one that never began, the runs are another's.
        said = [] if turn.first_seq is None else (yield from read_runs(turn, [(runs[-1][1], runs[-1][1])]))
        ended = turn_of(turn, said)
        found += [Notice(Place.REPLY, ended)] if _has_reply(ended) else []
        found.append(Notice(Place.END, ended))
    return [notice for notice in found if notice.place > after]


def _place_of(turn: TurnRow) -> int:
    """Of the turn's state as it stands."""
    state = TurnState(turn.state)
    run = len(turn.past_runs) + 1
    if state.terminal:
        return Place.END
    if state is TurnState.SUBMITTED:
        return Place.SUBMITTED
    return Place.paused(run) if state.paused else Place.working(run)


def _run_starts(turn: TurnRow) -> Operation[list[_RunStart | None]]:
    """The user's message that began each run; None for a run of the turn in whose place this one is."""
    runs = turn.runs
    if not runs:
        return []
    span = {"turn": turn.id, "first_seq": runs[0][0], "last_seq": runs[-1][0]}
    rows = yield from fetch(sql.RUN_STARTS, key_parameters(turn.key) | span)
    by_seq = {start.seq: start for start in (_RunStart(*row) for row in rows)}
    return [by_seq.get(first) for first, _ in runs]


def _asks(said: Sequence[StoredMessage]) -> bool:
    """The last of a run that was paused; one that was broken off ends with a call, or what came before."""
    return bool(said) and isinstance(said[-1].message, ModelMessage) and not said[-1].message.calls


def _has_reply(turn: Turn) -> bool:
    return turn.state is TurnState.COMPLETED and _asks(turn.messages)
