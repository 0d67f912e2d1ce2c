"""The operations of a turn that was accepted: append, end, and taking it back."""

from collections.abc import Sequence
from typing import Any

from hector.domain.errors import LeaseLostError
from hector.domain.ids import SessionKey
from hector.domain.messages import StoredMessage, Usage
from hector.domain.turns import Lease, NewMessage, Outcome, Reason, Turn, TurnState
from hector.storage import statements as sql
from hector.storage.codec import storable
from hector.storage.operations import Operation, execute, fetch, together
from hector.storage.reading import (
    Parameters,
    TurnRow,
    key_parameters,
    must_read_turn,
    read_runs,
    time_of,
    turn_row,
)
from hector.storage.rows import SessionRow, insert_agent_messages, is_held, leave_queue, lock, mark

_CANCELED = Outcome(TurnState.CANCELED, Reason.CANCELED, "canceled by its user")
_MOST_TOKENS = 2**53
"""Whatever a provider claims must fit the column."""
_TOO_LONG = (
    "the session was busy for longer than turns.max_wait allows, and the model was not asked;"
    " send the message again"
)


def append(lease: Lease, new: Sequence[NewMessage]) -> Operation[int]:
    """Add messages to the running turn; the seq of the last."""
    last = lease.seq + len(new)
    if (yield from execute(sql.GUARDED_ADVANCE, guard_parameters(lease) | {"new_seq": last})) == 1:
        yield from together(insert_agent_messages(lease, new), _count(lease, usage_of(new)))
    elif not (yield from _appended_before(lease, new)):
        raise LeaseLostError(lease.turn_id)
    return last


def end(lease: Lease, new: Sequence[NewMessage], outcome: Outcome) -> Operation[Turn]:
    """Add the last messages, set the outcome and release the lease."""
    last = lease.seq + len(new)
    guard = guard_parameters(lease)
    if (yield from execute(sql.GUARDED_RELEASE, guard | {"new_seq": last})) != 1:
        return (yield from _ended_before(lease))
    # In this order: what is asked last is told of the turn as it is by then.
    *_, ended = yield from together(
        insert_agent_messages(lease, new),
        _close(guard, [(lease.run_seq, last)], outcome),
        fetch(sql.ENDED_AT, guard),
    )
    if lease.resumed:
        yield from _mark_past_runs(guard, outcome)
        return (yield from must_read_turn(lease.key, lease.turn_id))
    return ended_turn(lease, new, outcome, ended[0][0] if ended else None)


def ended_turn(lease: Lease, new: Sequence[NewMessage], outcome: Outcome, ended_at: Any) -> Turn:
    """The turn as it has just ended, with its last messages; `ended_at` as the database has it."""
    stored = tuple(
        StoredMessage(item.message, seq, lease.turn_id, item.tokens)
        for seq, item in enumerate(new, lease.seq + 1)
    )
    return Turn(
        lease.turn_id,
        lease.key,
        outcome.state,
        outcome.reason,
        outcome.error,
        outcome.retryable,
        lease.attempt,
        usage=lease.usage + _countable(outcome.usage),
        messages=stored,
        ended_at=time_of(ended_at),
    )


def usage_of(new: Sequence[NewMessage]) -> Usage:
    """As it is counted."""
    return _countable(sum((item.usage for item in new), Usage()))


def usage_parameters(usage: Usage) -> Parameters:
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def _countable(usage: Usage) -> Usage:
    return Usage(min(usage.input_tokens, _MOST_TOKENS), min(usage.output_tokens, _MOST_TOKENS))


def _count(lease: Lease, usage: Usage) -> Operation[None]:
    if usage:
        names = key_parameters(lease.key) | {"turn": lease.turn_id}
        yield from execute(sql.COUNT_USAGE, names | usage_parameters(usage))


def withdraw(
    key: SessionKey, turn_id: str, message_id: str, reason: str, before: Turn | None = None
) -> Operation[Turn | None]:
    """Take a waiting message out of the queue; a turn that only waited is canceled with it."""
    names = key_parameters(key) | {"turn": turn_id, "message_id": message_id}
    row = yield from lock(names)
    if row is None:
        return before
    if not (yield from fetch(sql.IS_WAITING, names)):
        left = yield from fetch(sql.HAS_LEFT, names | {"run_state": TurnState.CANCELED.value})
        return before if left else None
    turn = yield from must_read_turn(key, turn_id)
    yield from take_out(names, turn.state, reason, left=row.waiting - 1)
    return (yield from must_read_turn(key, turn_id))


def take_out(names: Parameters, state: TurnState, reason: str, *, left: int) -> Operation[None]:
    """Take a message out of the queue that stands in it; its turn is canceled if that only waited, too."""
    yield from leave_queue(names, names["turn"], names["message_id"], TurnState.CANCELED, left=left)
    if state is TurnState.SUBMITTED:
        waited = Outcome(TurnState.CANCELED, reason, _TOO_LONG, retryable=True)
        outcome = waited if reason == Reason.MAX_WAIT else _CANCELED
        yield from _close(names | {"epoch": None}, [], outcome)
        yield from _mark_past_runs(names, outcome)


def cancel(key: SessionKey, turn_id: str, before: Turn | None = None) -> Operation[Turn | None]:
    """End a turn as canceled by its user; None if it has ended.

    One that runs is taken from whoever runs it: their next guarded write fails.
    """
    names = key_parameters(key) | {"turn": turn_id}
    row = yield from lock(names)
    turn = yield from turn_row(key.agent_id, key.user_id, turn_id)
    if row is None or turn is None or turn.key != key:
        return None
    state = TurnState(turn.state)
    if state is TurnState.SUBMITTED:
        (waiting,) = yield from read_runs(turn, (), with_waiting=True, with_files=False)
        return (yield from withdraw(key, turn_id, waiting.message_id or "", Reason.CANCELED))
    if state is TurnState.WORKING:
        yield from take_away(names, row, turn, _CANCELED)
    elif state.paused:
        yield from _close(names | {"epoch": turn.epoch}, turn.runs, _CANCELED)
    else:
        return before if state is TurnState.CANCELED else None
    return (yield from must_read_turn(key, turn_id))


def hand_over(lease: Lease) -> Operation[None]:
    """Leave a running turn to whoever comes first."""
    guard = guard_parameters(lease)
    if (yield from execute(sql.GUARDED_HAND_OVER, guard)) != 1:
        raise LeaseLostError(lease.turn_id)
    yield from execute(sql.LEAVE_TURN, guard)


def take_away(names: Parameters, row: SessionRow, turn: TurnRow, outcome: Outcome) -> Operation[None]:
    """End a running turn in place of its replica."""
    assert turn.first_seq is not None, "a turn that holds a lease has begun"
    yield from execute(sql.BREAK_LEASE, names)
    # The turn's epoch goes up with the session's: should its replica live, this end is not its own.
    runs = [*turn.past_runs, (turn.first_seq, row.last_seq)]
    yield from _close(names | {"epoch": row.lease_epoch + 1}, runs, outcome)


def _appended_before(lease: Lease, new: Sequence[NewMessage]) -> Operation[bool]:
    """Whether this very append was done: the commit of its first try got no answer."""
    names = key_parameters(lease.key)
    row = yield from lock(names)
    if row is None or not new or row.last_seq != lease.seq + len(new):
        return False
    if not is_held(row, lease):
        return False
    turn = yield from turn_row(lease.key.agent_id, lease.key.user_id, lease.turn_id)
    assert turn, "it holds the lease"
    stored = yield from read_runs(turn, [(lease.seq + 1, row.last_seq)])
    return [each.message for each in stored] == [each.message for each in new]


def _ended_before(lease: Lease) -> Operation[Turn]:
    """The turn, if this very lease has ended it already: the commit of the first try got no answer."""
    row = yield from turn_row(lease.key.agent_id, lease.key.user_id, lease.turn_id)
    if row is None or row.epoch != lease.epoch or row.state == TurnState.WORKING:
        raise LeaseLostError(lease.turn_id)
    return (yield from must_read_turn(lease.key, lease.turn_id))


def _close(names: Parameters, runs: Sequence[tuple[int, int]], outcome: Outcome) -> Operation[None]:
    """Set the turn's outcome; mark the messages of these runs if it has no answer."""
    ended = outcome_parameters(outcome) | {"last_seq": runs[-1][1] if runs else None}
    yield from execute(sql.END_TURN, names | ended)
    if outcome.state is not TurnState.COMPLETED:
        yield from mark(names, runs, _mark_of(outcome))


def outcome_parameters(outcome: Outcome) -> Parameters:
    return {
        "state": outcome.state.value,
        "reason": outcome.reason,
        "error": storable(outcome.error) if outcome.error else None,
        "retryable": outcome.retryable,
        **usage_parameters(_countable(outcome.usage)),
    }


def _mark_of(outcome: Outcome) -> str | None:
    """Why the turn has no answer; None if it has one."""
    if outcome.state is TurnState.COMPLETED:
        return None
    return Reason.WAITING_FOR_INPUT if outcome.state.paused else outcome.reason or outcome.state.value


def _mark_past_runs(names: Parameters, outcome: Outcome) -> Operation[None]:
    """What was said before a pause counts as the turn does."""
    turn = yield from turn_row(names["agent"], names["user"], names["turn"])
    assert turn, "it was just ended"
    yield from mark(names, turn.past_runs, _mark_of(outcome))


def guard_parameters(lease: Lease) -> Parameters:
    return key_parameters(lease.key) | {
        "replica": lease.owner,
        "turn": lease.turn_id,
        "epoch": lease.epoch,
        "seq": lease.seq,
    }
