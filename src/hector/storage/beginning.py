"""What the beginnings of all runs have in common: of a new turn, of one that waited, of one taken over."""

import json

from hector.domain.ids import SessionKey
from hector.domain.memory import TailLimit
from hector.domain.turns import Begun, Lease, TurnState
from hector.storage import statements as sql
from hector.storage.operations import Operation, execute
from hector.storage.reading import Parameters, TurnRow, key_parameters, read_runs, read_tail, turn_row
from hector.storage.rows import SessionRow, lock


def start_turn(names: Parameters, turn: TurnRow) -> Operation[None]:
    """Begin a run of a turn that waited or was paused."""
    past = turn.runs
    if past:
        paused = {"run_state": turn.state, "seq": past[-1][0]}
        yield from execute(sql.SET_RUN_STATE, names | paused)
    working = {
        "state": TurnState.WORKING.value,
        "earlier_runs": json.dumps(past) if past else None,
        "attempt": turn.attempt + bool(past),
    }
    yield from execute(sql.START_TURN, names | working)


def begun(key: SessionKey, turn_id: str, row: SessionRow, limit: TailLimit) -> Operation[Begun]:
    """The run that has just begun, as it is read from the store."""
    turn = yield from turn_row(key.agent_id, key.user_id, turn_id)
    assert turn, "it has just begun"
    assert turn.first_seq is not None, "it has just begun"
    assert row.lease_owner, "it has just begun"
    resumed = bool(turn.past_runs)
    own = yield from read_runs(turn, turn.runs)
    tail = yield from read_tail(
        key_parameters(key),
        before=turn.first_seq,
        summarized=row.summarized,
        limit=limit,
        without_turn=turn_id if resumed else None,
    )
    lease = Lease(
        key, turn_id, row.lease_owner, row.lease_epoch, turn.attempt, row.last_seq, turn.first_seq, resumed
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


def locked(names: Parameters) -> Operation[SessionRow]:
    row = yield from lock(names)
    assert row, "its row was written in this transaction"
    return row
