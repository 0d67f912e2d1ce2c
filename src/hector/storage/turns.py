"""The operation that takes a message: accept."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

from hector.domain.admission import (
    Claim,
    Continue,
    Decision,
    EarlierFacts,
    Join,
    Resume,
    Return,
    SessionFacts,
    Start,
    admit,
)
from hector.domain.errors import BusyError, NotPausedError, QueueFullError
from hector.domain.ids import SessionKey
from hector.domain.memory import TailLimit
from hector.domain.messages import UserMessage
from hector.domain.notices import Place
from hector.domain.turns import (
    Accepted,
    Arrival,
    Begun,
    Joined,
    Lease,
    Queued,
    Reason,
    Repeated,
    TurnState,
)
from hector.storage import statements as sql
from hector.storage.beginning import begun, first_attempt, leased, locked, start_turn
from hector.storage.codec import decode, encode, role_of
from hector.storage.operations import Operation, execute, fetch, together
from hector.storage.push import store_config
from hector.storage.reading import (
    TurnRow,
    key_parameters,
    must_read_turn,
    read_tail,
    turn_row,
)
from hector.storage.repeats import Earlier, as_it_stood, find_earlier
from hector.storage.rows import (
    SessionRow,
    insert_session,
    insert_user_message,
    lock,
    mark,
)
from hector.storage.taking import is_attended


def accept(arrival: Arrival, limit: TailLimit) -> Operation[Accepted]:
    """Store a message and begin its turn, or queue it, or find what it repeats.

    The lock of the session's row comes first, so what follows is read and decided in the order of the locks.
    """
    key = arrival.key
    names = key_parameters(key)
    row, earlier = yield from together(lock(names), find_earlier(names, arrival.message_id))
    named = (yield from _named(arrival)) if arrival.resumes else None
    went_to_named = bool(earlier and named) and (yield from _went_to(arrival))
    facts = _facts(earlier, arrival.message, went_to_named=went_to_named) if earlier else None
    decision = yield from _admit(arrival, row, facts, named)
    match decision:
        case Start(retry, supersedes, waits):
            past = (yield from _supersede(key, supersedes)) if supersedes else []
            if row and waits:
                queued = yield from _enqueue(arrival, row, retry, past)
                yield from _store_push(arrival, arrival.turn_id, Place.NOTHING)
                return queued
            began = yield from _begin(arrival, row, retry, past, limit)
            yield from _store_push(arrival, arrival.turn_id, Place.NOTHING)
            return began
        case Resume(_, retry, waits):
            assert row, "a paused turn has a session"
            assert named, "only a named turn is resumed"
            yield from _store_push(arrival, named.id, Place.paused(len(named.runs)))
            if waits:
                return (yield from _enqueue(arrival, row, retry, resumes=named.id))
            return (yield from _resume(arrival, row, named, retry, limit))
        case Continue():
            assert row, "a stored message has a session"
            assert earlier, "this arrival was stored"
            return (yield from _continue(arrival, row, earlier, limit))
        case Join(turn_id):
            return Joined((yield from must_read_turn(key, turn_id)))
        case Return():
            assert earlier, "only what came earlier is returned"
            return Repeated((yield from as_it_stood(key, earlier)))
        case _:
            assert_never(decision)


def _admit(
    arrival: Arrival, row: SessionRow | None, earlier: EarlierFacts | None, named: TurnRow | None
) -> Operation[Decision]:
    claim = Claim(arrival.message_id, arrival.turn_id, arrival.resumes, arrival.on_busy, arrival.max_waiting)
    decide = partial(
        admit,
        SessionFacts(row.lease_turn_id, row.waiting) if row else SessionFacts(None, 0),
        earlier,
        TurnState(named.state) if named else None,
    )
    try:
        return decide(claim)
    except (BusyError, QueueFullError):
        assert row, "a session that is not there is free"
        if (yield from is_attended(arrival.key, row)):
            raise
        # Whom it would wait for is dead, and perhaps nobody but the caller is there to go on: it waits,
        # for that is what makes its process see to the rest.
        return decide(replace(claim, on_busy="wait", max_waiting=row.waiting + 1))


# --- what came earlier


def _named(arrival: Arrival) -> Operation[TurnRow | None]:
    """The turn that the client named, if it is one of this session."""
    key = arrival.key
    turn = yield from turn_row(key.agent_id, key.user_id, arrival.resumes or "")
    return turn if turn and turn.key == key else None


def _went_to(arrival: Arrival) -> Operation[bool]:
    """A try of the same message went to the turn that the client named."""
    names = {"message_id": arrival.message_id, "turn": arrival.resumes}
    return bool((yield from fetch(sql.WENT_TO, key_parameters(arrival.key) | names)))


def _facts(earlier: Earlier, message: UserMessage, *, went_to_named: bool) -> EarlierFacts:
    # Encoded and decoded, so that large files compare by their hash.
    ours = decode(role_of(message), encode(message)[0])
    # Of a turn that never began, its own state says all.
    run_state = earlier.run_state if earlier.first_seq is not None else None
    return EarlierFacts(
        earlier.turn_id,
        earlier.arrival_id or earlier.turn_id,
        earlier.retry,
        decode(earlier.role, earlier.content) == ours,
        earlier.waits,
        TurnState(run_state) if run_state else None,
        TurnState(earlier.state),
        earlier.reason,
        went_to_named,
    )


def _continue(arrival: Arrival, row: SessionRow, earlier: Earlier, limit: TailLimit) -> Operation[Accepted]:
    """What became of an arrival that is stored: its commit got no answer, or it was put into the queue."""
    if earlier.waits:
        assert earlier.ticket is not None, "what waits has a ticket"
        names = key_parameters(arrival.key) | {"ticket": earlier.ticket}
        ((before,),) = yield from fetch(sql.COUNT_AHEAD, names)
        ahead = before + (row.lease_turn_id is not None)
        return Queued(earlier.turn_id, earlier.ticket, ahead, row.last_seq)
    if earlier.run_state == TurnState.REJECTED:
        raise NotPausedError(earlier.turn_id, earlier.state)
    # It begins again only where nothing came after it; what had a ticket was begun by `take`, for its caller.
    if (
        (row.lease_owner, row.lease_turn_id) == (arrival.replica_id, earlier.turn_id)
        and earlier.seq == row.last_seq
        and earlier.ticket is None
        and (yield from _is_its_first_run(arrival.key, earlier.turn_id))
    ):
        return (yield from begun(arrival.key, earlier.turn_id, row, limit))
    if earlier.state == TurnState.WORKING and earlier.run_state is None:
        return Joined((yield from must_read_turn(arrival.key, earlier.turn_id)))
    return Repeated((yield from as_it_stood(arrival.key, earlier)))


def _is_its_first_run(key: SessionKey, turn_id: str) -> Operation[bool]:
    """Otherwise it was taken over since, and runs."""
    turn = yield from turn_row(key.agent_id, key.user_id, turn_id)
    return turn is not None and turn.attempt == 1 + len(turn.past_runs)


def _supersede(key: SessionKey, turn_id: str) -> Operation[Sequence[tuple[int, int]]]:
    """The runs that its pauses ended; the turn that takes its place goes on with them.

    They were acknowledged: only the last run leaves the context, which the message began that is tried again.
    """
    names = key_parameters(key) | {"turn": turn_id}
    turn = yield from turn_row(key.agent_id, key.user_id, turn_id)
    assert turn, "a stored message has its turn"
    yield from execute(sql.SUPERSEDE_TURN, names)
    yield from mark(names, turn.runs[len(turn.past_runs) :], Reason.SUPERSEDED)
    yield from mark(names, turn.past_runs, Reason.WAITING_FOR_INPUT)
    return turn.past_runs


def _store_push(arrival: Arrival, turn_id: str, since: int) -> Operation[None]:
    """To be told what this message leads to."""
    if arrival.push:
        names = key_parameters(arrival.key) | {"turn": turn_id}
        yield from store_config(names, arrival.push, since=since)


# --- beginning


def _begin(
    arrival: Arrival, row: SessionRow | None, retry: int, past: Sequence[tuple[int, int]], limit: TailLimit
) -> Operation[Begun]:
    """A new turn, at once; it goes on with these runs."""
    names = leased(arrival.key, arrival.turn_id, arrival.replica_id, row) | first_attempt(past)
    seq = names["seq"]
    # The first is a key of what follows.
    _, _, stored, tail = yield from together(
        execute(sql.TAKE_LEASE, names | {"waiting": row.waiting})
        if row
        else insert_session(names, secrets.token_hex(16)),
        execute(sql.INSERT_TURN, names | {"state": TurnState.WORKING.value}),
        insert_user_message(names, arrival, retry, seq=seq),
        read_tail(names, before=seq, summarized=row.summarized if row else 0, limit=limit),
    )
    if past:
        return (yield from begun(arrival.key, arrival.turn_id, (yield from locked(names)), limit))
    lease = Lease(arrival.key, arrival.turn_id, arrival.replica_id, names["epoch"], 1, seq, seq)
    return Begun(lease, tail, (stored,), row is None, seq - 1)


def _resume(
    arrival: Arrival, row: SessionRow, turn: TurnRow, retry: int, limit: TailLimit
) -> Operation[Begun]:
    """A paused turn, at once."""
    names = leased(arrival.key, turn.id, arrival.replica_id, row)
    yield from execute(sql.TAKE_LEASE, names | {"waiting": row.waiting})
    yield from insert_user_message(names, arrival, retry, seq=names["seq"])
    yield from start_turn(names, turn)
    return (yield from begun(arrival.key, turn.id, (yield from locked(names)), limit))


def _enqueue(
    arrival: Arrival,
    row: SessionRow,
    retry: int,
    past: Sequence[tuple[int, int]] = (),
    *,
    resumes: str | None = None,
) -> Operation[Queued]:
    turn_id = resumes or arrival.turn_id
    names = key_parameters(arrival.key) | {"turn": turn_id}
    ticket = row.next_ticket + 1
    yield from execute(sql.ENQUEUE, names)
    if resumes is None:
        yield from execute(
            sql.INSERT_WAITING_TURN, names | first_attempt(past) | {"state": TurnState.SUBMITTED.value}
        )
    yield from insert_user_message(names, arrival, retry, ticket=ticket)
    return Queued(turn_id, ticket, row.waiting + (row.lease_turn_id is not None), row.last_seq)
