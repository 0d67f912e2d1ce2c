"""What the database server has of the machines: rows, connections, locks."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.servers import Database

T = TypeVar("T")

_PAUSE = 0.1
"""Seconds."""
_EVERYTHING = {
    "messages": "seq, turn_id, message_id, role, content",
    "turns": "id, session_id, state, reason, error, attempt, epoch, first_seq, last_seq, replica_id",
    "turn_events": "turn_id, attempt, first_number, last_number, content",
    "sessions": "id, agent_id, incarnation, last_seq, waiting, lease_owner, lease_turn_id, lease_epoch",
}


@dataclass(frozen=True, slots=True)
class Replica:
    id: str
    counter: int
    lock: str | None


class Tables:
    def __init__(self, db: Database) -> None:
        self.db = db

    async def replicas(self) -> Mapping[str, Replica]:
        """By the names of their machines; at most one on each."""
        rows = await self.db.run("SELECT id, label, counter, lock_name FROM replicas")
        found = {
            label.partition(":")[0]: Replica(str(replica), counter, lock)
            for replica, label, counter, lock in rows
        }
        assert len(found) == len(rows), rows
        return found

    async def texts(self, agent: str, session: str = "s") -> Sequence[str]:
        """What was said, in its order."""
        rows = await self.db.run(
            "SELECT content FROM messages"
            f" WHERE agent_id = '{agent}' AND session_id = '{session}' ORDER BY seq"
        )
        return [json.loads(content)[0]["text"] for (content,) in rows]

    async def attempts(self, agent: str) -> Sequence[tuple[str, int]]:
        """The state and the attempt of each turn, in their order."""
        return [
            (state, attempt)
            for state, attempt in await self.db.run(
                f"SELECT state, attempt FROM turns WHERE agent_id = '{agent}' ORDER BY first_seq"
            )
        ]

    async def everything(self) -> Mapping[str, Sequence[Any]]:
        """Of the conversations."""
        return {
            table: sorted(map(repr, await self.db.run(f"SELECT {columns} FROM {table}")))
            for table, columns in _EVERYTHING.items()
        }

    async def lock_of(self, machine: str) -> str:
        """The name of the one that its connection holds; it is taken with the first beat."""

        async def lock() -> str | None:
            return (await self.replicas())[machine].lock

        return await _until(lock)

    async def is_held(self, lock: str) -> bool:
        """By whoever: the server knows."""
        if self.db.driver == "postgres":
            key = int(lock.rpartition(".")[2], 16)
            held = (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                f" AND (classid::bigint << 32) | objid::bigint = {key - (key >> 63 << 64)}"
            )
        else:
            held = f"SELECT IS_USED_LOCK('hector-{lock}') IS NOT NULL"
        ((number,),) = await self.db.run(held, admin=True)
        return bool(number)

    async def until_told(self) -> None:
        """What a turn tells has been stored, for the first time."""
        await _until(lambda: self.db.run("SELECT turn_id FROM turn_events"))

    async def until_blocked(self, address: str) -> None:
        """A statement of the machine waits for a row that another transaction holds."""
        if self.db.driver == "postgres":
            blocked = (
                "SELECT pid FROM pg_stat_activity"
                f" WHERE wait_event_type = 'Lock' AND client_addr = '{address}'"
            )
        else:
            blocked = (
                "SELECT process.id FROM information_schema.innodb_trx AS held"
                " JOIN information_schema.processlist AS process ON process.id = held.trx_mysql_thread_id"
                f" WHERE held.trx_state = 'LOCK WAIT' AND process.host LIKE '{address}:%'"
            )
        await _until(lambda: self.db.run(blocked, admin=True))

    async def until_beaten(self, before: Mapping[str, Replica], times: int) -> None:
        """Each replica has beaten so many times more, if it is still there."""

        async def beaten() -> bool:
            now = await self.replicas()
            return all(
                replica.id != before[name].id or replica.counter >= before[name].counter + times
                for name, replica in now.items()
            )

        await _until(beaten)


async def _until(look: Callable[[], Awaitable[T | None]]) -> T:
    """What is seen as soon as it is something: a database tells nobody who does not ask."""
    while not (seen := await look()):  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(_PAUSE)
    return seen
