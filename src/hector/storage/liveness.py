"""The operations by which replicas show that they live, and find out who does not."""

from collections.abc import Sequence

from hector.domain.ids import SessionKey
from hector.domain.replicas import OpenTurn, ReplicaRow
from hector.storage import statements as sql
from hector.storage.operations import Operation, Row, execute, fetch
from hector.storage.reading import seconds_between
from hector.storage.rows import is_alive


def register(replica: ReplicaRow) -> Operation[None]:
    if (yield from is_alive(replica.id)):
        return  # by an earlier run of this operation, whose commit got no answer
    row = {"replica": replica.id, "label": replica.label, "ttl_ms": round(replica.ttl * 1000)}
    yield from execute(sql.INSERT_REPLICA, row)


def beat(replica_id: str, lock: str | None) -> Operation[bool]:
    """`lock`: the name of the one that is held, where locks are the server's."""
    return (yield from execute(sql.BEAT, {"replica": replica_id, "lock": lock})) == 1


def list_replicas() -> Operation[list[ReplicaRow]]:
    rows = yield from fetch(sql.LIST_REPLICAS, {})
    return [
        ReplicaRow(replica, label, ttl_ms / 1000, counter, lock)
        for replica, label, ttl_ms, counter, lock in rows
    ]


def declare_dead(replica: ReplicaRow, before: int | None) -> Operation[int]:
    """How many rows that removed, with an earlier run of this operation."""
    seen = {"replica": replica.id, "counter": replica.counter}
    removed = yield from execute(sql.DECLARE_DEAD, seen)
    if not removed and before and not (yield from is_alive(replica.id)):
        return before
    return removed


def retire(replica_id: str) -> Operation[None]:
    yield from execute(sql.RETIRE, {"replica": replica_id})


def open_turns(replica_id: str) -> Operation[list[OpenTurn]]:
    names = {"replica": replica_id}
    running = yield from fetch(sql.RUNNING_OF, names)
    return _open(running, (yield from fetch(sql.WAITING_OF, names)))


def orphans() -> Operation[list[OpenTurn]]:
    running = yield from fetch(sql.RUNNING_ORPHANS, {})
    return _open(running, (yield from fetch(sql.WAITING_ORPHANS, {})))


def _open(running: Sequence[Row], waiting: Sequence[Row]) -> list[OpenTurn]:
    return [
        *(
            OpenTurn(SessionKey(agent, user, session), turn, working=True)
            for agent, user, session, turn in running
        ),
        *(
            OpenTurn(
                SessionKey(agent, user, session),
                turn,
                working=False,
                message_id=message,
                waited=seconds_between(taken, now),
            )
            for agent, user, session, turn, message, taken, now in waiting
        ),
    ]
