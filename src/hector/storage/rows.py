"""What the operations of sessions and turns read and write in common."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hector.domain.messages import StoredMessage
from hector.domain.turns import Arrival, Lease, NewMessage, TurnState
from hector.storage import statements as sql
from hector.storage.codec import encode, encode_notes, role_of
from hector.storage.operations import Operation, execute, fetch
from hector.storage.reading import Parameters, key_parameters


class SessionRow(NamedTuple):
    """What `sql.LOCK_SESSION` reads."""

    lease_owner: str | None
    lease_turn_id: str | None
    lease_epoch: int
    last_seq: int
    next_ticket: int
    waiting: int
    incarnation: str
    summarized: int


def lock(names: Mapping[str, Any]) -> Operation[SessionRow | None]:
    """The session's row, locked until the transaction ends; None if there is no such session."""
    rows = yield from fetch(sql.LOCK_SESSION, names)
    return SessionRow(*rows[0]) if rows else None


def is_held(row: SessionRow, lease: Lease) -> bool:
    """Nobody has taken the lease away, and its turn has not ended."""
    return (row.lease_owner, row.lease_turn_id, row.lease_epoch) == (lease.owner, lease.turn_id, lease.epoch)


def is_alive(replica_id: str | None) -> Operation[bool]:
    if replica_id is None:
        return False
    return bool((yield from fetch(sql.GET_REPLICA, {"replica": replica_id})))


def insert_session(names: Parameters, incarnation: str) -> Operation[int]:
    return (yield from execute(sql.INSERT_SESSION, names | {"incarnation": incarnation}))


def insert_user_message(
    names: Parameters, arrival: Arrival, retry: int, *, seq: int | None = None, ticket: int | None = None
) -> Operation[StoredMessage]:
    message, turn_id = arrival.message, names["turn"]
    content, files = encode(message)
    yield from _insert_files(names, files)
    inserted: Parameters = {
        "seq": seq,
        "message_id": arrival.message_id,
        "retry": retry,
        "role": role_of(message),
        "content": content,
        "metadata": encode_notes(message),
        "tokens": arrival.tokens,
        "ticket": ticket,
        "waits_at": arrival.replica_id if seq is None else None,
        "arrival": arrival.turn_id if arrival.turn_id != turn_id else None,
    }
    yield from execute(sql.INSERT_USER_MESSAGE, names | inserted)
    return StoredMessage(message, seq, turn_id, arrival.tokens, arrival.message_id)


def insert_agent_messages(lease: Lease, new: Sequence[NewMessage]) -> Operation[None]:
    names = key_parameters(lease.key) | {"turn": lease.turn_id}
    for seq, item in enumerate(new, lease.seq + 1):
        content, files = encode(item.message)
        yield from _insert_files(names, files)
        inserted = {"seq": seq, "role": role_of(item.message), "content": content, "tokens": item.tokens}
        yield from execute(sql.INSERT_AGENT_MESSAGE, names | inserted)


def _insert_files(names: Parameters, files: Mapping[str, bytes]) -> Operation[None]:
    for digest, data in files.items():
        if not (yield from fetch(sql.HAS_FILE, names | {"sha256": digest})):
            yield from execute(sql.INSERT_FILE, names | {"sha256": digest, "data": data})


def leave_queue(
    names: Parameters, turn_id: str, message_id: str, run_state: TurnState, *, left: int
) -> Operation[None]:
    leaving = {"turn": turn_id, "message_id": message_id, "run_state": run_state.value, "waiting": left}
    yield from execute(sql.LEAVE_QUEUE, names | leaving)
    yield from execute(sql.SET_WAITING, names | leaving)


def mark(names: Parameters, runs: Sequence[tuple[int, int]], unanswered: str | None) -> Operation[None]:
    for first, last in runs:
        marked = {"first_seq": first, "last_seq": last, "unanswered": unanswered}
        yield from execute(sql.MARK_RUN, names | marked)
