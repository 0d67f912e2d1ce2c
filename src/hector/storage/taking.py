"""The operation that goes on with a session: what nobody runs any more, then what waits."""

from typing import Any, NamedTuple

from hector.domain.ids import SessionKey
from hector.domain.memory import TailLimit
from hector.domain.recovery import BrokenOff, give_up
from hector.domain.turns import Begun, Outcome, Reason, Recovery, Taken, TurnState
from hector.storage import statements as sql
from hector.storage.beginning import begun, leased, locked, start_turn
from hector.storage.operations import Operation, execute, fetch
from hector.storage.reading import Parameters, TurnRow, key_parameters, read_runs, seconds_between, turn_row
from hector.storage.rows import SessionRow, is_alive, is_held, leave_queue, lock
from hector.storage.running import take_away, take_out


class _Waiting(NamedTuple):
    """What `sql.FIRST_WAITING` reads."""

    turn_id: str
    message_id: str
    replica_id: str | None
    state: str
    taken_at: Any
    now: Any

    @property
    def waited(self) -> float:
        return seconds_between(self.taken_at, self.now)


def take(
    key: SessionKey,
    replica_id: str,
    limit: TailLimit,
    recovery: Recovery,
    leaked: str | None,
    max_wait: float,
    before: Taken | None = None,
) -> Operation[Taken]:
    """Run on, or end, a turn that nobody runs; then begin the waiting turn with the lowest ticket.

    That one is begun if it is this replica's, or nobody's.
    """
    names = key_parameters(key)
    row = yield from lock(names)
    if row is None:
        return Taken()
    if before and before.begun and is_held(row, before.begun.lease):
        return before
    ended = row.lease_turn_id
    if ended is not None:
        is_leaked = ended == leaked and row.lease_owner == replica_id
        if not is_leaked and (yield from is_alive(row.lease_owner)):
            return Taken()
        names_of_turn = names | {"turn": ended, "replica": replica_id}
        taken_over = yield from _take_over(key, names_of_turn, row, limit, recovery)
        if taken_over:
            return Taken(taken_over)
        row = yield from locked(names)
    withdrawn = list(before.withdrawn) if before else []
    first = yield from _take_waiting(key, row, replica_id, limit, max_wait, withdrawn)
    return Taken(first, ended, tuple(withdrawn))


def is_attended(key: SessionKey, row: SessionRow) -> Operation[bool]:
    """Somebody lives who goes on with the session: who runs its turn, or took what waits first."""
    if row.lease_turn_id is not None:
        return (yield from is_alive(row.lease_owner))
    found = yield from fetch(sql.FIRST_WAITING, key_parameters(key))
    return bool(found) and (yield from is_alive(_Waiting(*found[0]).replica_id))


def _take_over(
    key: SessionKey, names: Parameters, row: SessionRow, limit: TailLimit, recovery: Recovery
) -> Operation[Begun | None]:
    """Run a turn on that nobody runs; None if it was ended."""
    turn = yield from turn_row(key.agent_id, key.user_id, names["turn"])
    if turn is None:  # an operator deleted turns by hand
        yield from execute(sql.BREAK_LEASE, names)
        return None
    outcome = yield from _outcome(turn, row, recovery)
    if outcome:
        yield from take_away(names, row, turn, outcome)
        return None
    again = names | {"epoch": row.lease_epoch + 1}
    yield from execute(sql.TAKE_OVER_LEASE, again)
    yield from execute(sql.RUN_TURN_AGAIN, again)
    return (yield from begun(key, turn.id, (yield from locked(names)), limit))


def _outcome(turn: TurnRow, row: SessionRow, recovery: Recovery) -> Operation[Outcome | None]:
    try:
        own = yield from read_runs(turn, turn.runs, with_files=False)
    except (ValueError, KeyError, TypeError):
        # Somebody wrote into the table by hand: who cannot read what was called must fear the worst.
        return Outcome(
            TurnState.FAILED, Reason.TOOL_UNKNOWN, "the server stopped, and what it stored is damaged"
        )
    # Each run that a pause ended was one attempt.
    attempts = turn.attempt - len(turn.past_runs)
    messages = [stored.message for stored in own]
    return give_up(BrokenOff(messages, attempts, handed_over=row.lease_owner is None), recovery)


def _take_waiting(
    key: SessionKey,
    row: SessionRow,
    replica_id: str,
    limit: TailLimit,
    max_wait: float,
    withdrawn: list[str],
) -> Operation[Begun | None]:
    """`withdrawn` is added to."""
    names = key_parameters(key)
    waiting = row.waiting
    while waiting > 0:
        found = yield from fetch(sql.FIRST_WAITING, names)
        if not found:  # an operator deleted messages by hand
            yield from execute(sql.SET_WAITING, names | {"waiting": 0})
            return None
        first = _Waiting(*found[0])
        if first.replica_id != replica_id and (yield from is_alive(first.replica_id)):
            return None
        waiting -= 1
        state = TurnState(first.state)
        if first.waited > max_wait:
            late = names | {"turn": first.turn_id, "message_id": first.message_id}
            yield from take_out(late, state, Reason.MAX_WAIT, left=waiting)
            withdrawn.append(first.turn_id)
            continue
        if state is TurnState.SUBMITTED or state.paused:
            return (yield from _start_waiting(key, row, first, waiting, replica_id, limit))
        # The turn that this message would have resumed was canceled, or resumed by another, while it waited.
        yield from leave_queue(names, first.turn_id, first.message_id, TurnState.REJECTED, left=waiting)
    return None


def _start_waiting(
    key: SessionKey, row: SessionRow, first: _Waiting, waiting: int, replica_id: str, limit: TailLimit
) -> Operation[Begun]:
    turn = yield from turn_row(key.agent_id, key.user_id, first.turn_id)
    assert turn, "a waiting message has its turn"
    names = leased(key, turn.id, replica_id, row)
    yield from execute(sql.TAKE_LEASE, names | {"waiting": waiting})
    yield from execute(sql.START_MESSAGE, names | {"message_id": first.message_id})
    yield from start_turn(names, turn)
    return (yield from begun(key, turn.id, (yield from locked(names)), limit))
