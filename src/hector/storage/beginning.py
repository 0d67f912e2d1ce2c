"""What the beginnings of all runs have in common: of a new turn, of one that waited, of one taken over."""

import json
from collections.abc import Sequence

from hector.domain.ids import SessionKey
from hector.domain.memory import TailLimit
from hector.domain.turns import Begun, Lease, TurnState
from hector.storage import statements as sql
from hector.storage.operations import Operation, execute
from hector.storage.reading import Parameters, TurnRow, key_parameters, read_runs, read_tail, turn_row
from hector.storage.rows import SessionRow, lock


def start_turn(names: Parameters, turn: TurnRow) -> Operation[None]:
    """Begin a run of a turn that waited or was paused."""
    was_paused = turn.first_seq is not None
    if was_paused:
        yield from execute(sql.SET_RUN_STATE, names | {"run_state": turn.state, "seq": turn.first_seq})
    working = {"state": TurnState.WORKING.value, "attempt": turn.attempt + was_paused}
    yield from execute(sql.START_TURN, names | working | {"earlier_runs": _encode(turn.runs)})


def first_attempt(past: Sequence[tuple[int, int]]) -> Parameters:
    """The parameters of a new turn that goes on with these runs, each of which was one attempt."""
    return {"attempt": 1 + len(past), "earlier_runs": _encode(past)}


def begun(key: SessionKey, turn_id: str, row: SessionRow, limit: TailLimit) -> Operation[Begun]:
    """The run that has just begun, as it is read from the store."""
    turn = yield from turn_row(key.agent_id, key.user_id, turn_id)
    assert turn, "it has just begun"
    assert turn.first_seq is not None, "it has just begun"
    assert row.lease_owner, "it has just begun"
    own = yield from read_runs(turn, turn.runs)
    tail = yield from read_tail(
        key_parameters(key),
        before=turn.first_seq,
        summarized=row.summarized,
        limit=limit,
        without=turn.past_runs,
    )
    lease = Lease(
        key,
        turn_id,
        row.lease_owner,
        row.lease_epoch,
        turn.attempt,
        row.last_seq,
        turn.first_seq,
        bool(turn.past_runs),
        turn.usage,
    )
    return Begun(lease, tail, tuple(own), turn.first_seq == 1, turn.first_seq - 1)


def leased(key: SessionKey, turn_id: str, replica_id: str, row: SessionRow | None) -> Parameters:
    """The parameters of a run that begins: with the next epoch and the next seq of the session."""
    return key_parameters(key) | {
        "turn": turn_id,
        "replica": replica_id,
        "epoch": row.lease_epoch + 1 if row else 1,
        "seq": row.last_seq + 1 if row else 1,
    }


def _encode(runs: Sequence[tuple[int, int]]) -> str | None:
    return json.dumps(runs) if runs else None


def locked(names: Parameters) -> Operation[SessionRow]:
    row = yield from lock(names)
    assert row, "its row was written in this transaction"
    return row
