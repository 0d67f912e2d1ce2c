"""What the store knows of a message that was sent before, and what its turn was when it was answered."""

from typing import NamedTuple

from hector.domain.ids import SessionKey
from hector.domain.turns import Reason, Turn
from hector.storage import statements as sql
from hector.storage.operations import Operation, fetch
from hector.storage.reading import Parameters, must_read_turn, read_runs, turn_of, turn_row


class Earlier(NamedTuple):
    """What `sql.FIND_MESSAGE` reads."""

    turn_id: str
    arrival_id: str | None
    retry: int
    role: int
    content: str
    seq: int | None
    ticket: int | None
    run_state: str | None
    state: str
    reason: str | None
    first_seq: int | None

    @property
    def waits(self) -> bool:
        return self.seq is None and self.run_state is None


def find_earlier(names: Parameters, message_id: str) -> Operation[Earlier | None]:
    rows = yield from fetch(sql.FIND_MESSAGE, names | {"message_id": message_id})
    return Earlier(*rows[0]) if rows else None


def as_it_stood(key: SessionKey, earlier: Earlier) -> Operation[Turn]:
    """The turn when the run of that message ended."""
    row = yield from turn_row(key.agent_id, key.user_id, earlier.turn_id)
    assert row, "a stored message has its turn"
    if earlier.seq is None:
        return (yield from must_read_turn(key, earlier.turn_id))
    runs = [run for run in row.runs if run[0] <= earlier.seq]
    if earlier.run_state is not None:
        row = row._replace(
            state=earlier.run_state, reason=Reason.WAITING_FOR_INPUT, error=None, retryable=False
        )
    return turn_of(row, (yield from read_runs(row, runs)))
