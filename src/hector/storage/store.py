"""The session store: the operations, run by a driver."""

import base64
import json
import math
import secrets
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from hector.domain.errors import InvalidError
from hector.domain.events import EventId, Progress, Told
from hector.domain.ids import SessionKey, check_storable
from hector.domain.memory import Summary, Tail, TailLimit
from hector.domain.messages import StoredMessage
from hector.domain.notices import Claim, Due, DuePushes
from hector.domain.push import PushConfig
from hector.domain.replicas import OpenTurn, ReplicaLocks, ReplicaRow
from hector.domain.sessions import QueueState, Session, SessionPage
from hector.domain.summaries import Snapshot
from hector.domain.turns import (
    Accepted,
    Arrival,
    Lease,
    NewMessage,
    Outcome,
    Recovery,
    Taken,
    Turn,
    TurnFilter,
    TurnPage,
    TurnPlace,
    TurnState,
    Wanted,
)
from hector.storage import (
    deletion,
    events,
    fused,
    listing,
    liveness,
    push,
    reading,
    running,
    summaries,
    taking,
    turns,
)
from hector.storage.locks import ReplicaLocks as FileLocks
from hector.storage.operations import MakeOperation, remembering
from hector.storage.server.presence import Presence
from hector.storage.signals import NoSignals, Signals

T = TypeVar("T")

_MAX_PAGE = 10_000
_MAX_CURSOR = 4096
"""Characters. Ids of full length in 4-byte characters take 2600."""


class Driver(Protocol):
    shared: bool
    """Other processes may use the same database."""

    async def write(
        self,
        make: MakeOperation[T],
        at_once: MakeOperation[T | None] | None = None,
        *,
        group: Hashable = None,
    ) -> T:
        """Run an operation in a transaction; returns after its commit.

        `at_once` does the same in fewer steps, or returns None where it cannot: a driver may try it first.
        Operations of one group wait for one lock.
        """
        ...

    async def read(self, make: MakeOperation[T]) -> T: ...

    async def close(self) -> None: ...

    def time_argument(self, moment: datetime) -> Any:
        """A time as it is compared with the columns."""
        ...


class SqlSessionStore:
    """All that the domain wants of a store: turns, events, directories, replicas, push notifications."""

    def __init__(
        self,
        driver: Driver,
        *,
        files: FileLocks | None = None,
        presence: Presence | None = None,
        signals: Signals | None = None,
    ) -> None:
        self._driver = driver
        self._files, self._presence = files, presence
        self.locks: ReplicaLocks | None = files or presence
        """Tell soon that a replica's process is gone; None where there is no other process."""
        self.signals: Signals = signals or NoSignals()

    @property
    def shared(self) -> bool:
        """Other processes may use the same store."""
        return self._driver.shared

    async def accept(self, arrival: Arrival, limit: TailLimit) -> Accepted:
        return await self._driver.write(
            partial(turns.accept, arrival, limit), partial(fused.begin, arrival, limit), group=arrival.key
        )

    async def take(
        self,
        key: SessionKey,
        replica_id: str,
        limit: TailLimit,
        recovery: Recovery,
        leaked: str | None = None,
        *,
        max_wait: float = math.inf,
    ) -> Taken:
        take = partial(taking.take, key, replica_id, limit, recovery, leaked, max_wait)
        return await self._driver.write(remembering(take), group=key)

    async def hand_over(self, lease: Lease) -> None:
        await self._driver.write(partial(running.hand_over, lease), group=lease.key)

    async def append(self, lease: Lease, messages: Sequence[NewMessage]) -> Lease:
        at_once = partial(fused.append, lease, messages[0]) if len(messages) == 1 else None
        seq = await self._driver.write(partial(running.append, lease, messages), at_once, group=lease.key)
        return replace(lease, seq=seq, usage=lease.usage + running.usage_of(messages))

    async def end(self, lease: Lease, messages: Sequence[NewMessage], outcome: Outcome) -> Turn:
        plain = len(messages) == 1 and outcome.state is TurnState.COMPLETED and not lease.resumed
        at_once = partial(fused.end, lease, messages[0], outcome) if plain else None
        return await self._driver.write(
            partial(running.end, lease, messages, outcome), at_once, group=lease.key
        )

    async def withdraw(self, key: SessionKey, turn_id: str, message_id: str, reason: str) -> Turn | None:
        return await self._driver.write(
            remembering(partial(running.withdraw, key, turn_id, message_id, reason)), group=key
        )

    async def cancel(self, key: SessionKey, turn_id: str) -> Turn | None:
        return await self._driver.write(remembering(partial(running.cancel, key, turn_id)), group=key)

    async def turn(self, agent_id: str, user_id: str, turn_id: str) -> Turn | None:
        return await self._driver.read(partial(reading.read_turn, agent_id, user_id, turn_id))

    async def turns(
        self,
        agent_id: str,
        user_id: str,
        which: TurnFilter,
        *,
        limit: int,
        after: TurnPlace | None = None,
        wanted: Wanted = "questions",
    ) -> TurnPage:
        _check_limit(limit)
        names = {"agent": agent_id, "user": user_id}
        return await self._driver.read(
            partial(listing.list_turns, names, which, limit, after, wanted, self._driver.time_argument)
        )

    async def add_events(self, lease: Lease, told: Sequence[Told]) -> None:
        await self._driver.write(
            partial(events.add_events, lease, told), partial(fused.add_events, lease, told), group=lease.key
        )

    async def progress(
        self, agent_id: str, user_id: str, turn_id: str, after: EventId, message_id: str = ""
    ) -> Progress | None:
        return await self._driver.read(
            partial(events.progress, agent_id, user_id, turn_id, after, message_id)
        )

    async def forget_events(self, agent_id: str, retention: float) -> int:
        return await self._driver.write(
            partial(events.forget_events, agent_id, retention, self._driver.time_argument)
        )

    async def set_push(
        self, agent_id: str, user_id: str, turn_id: str, config: PushConfig
    ) -> PushConfig | None:
        epoch = push.first_epoch()
        return await self._driver.write(partial(push.set_push, agent_id, user_id, turn_id, config, epoch))

    async def pushes(self, agent_id: str, user_id: str, turn_id: str) -> Sequence[PushConfig] | None:
        return await self._driver.read(partial(push.list_configs, agent_id, user_id, turn_id))

    async def delete_push(self, agent_id: str, user_id: str, turn_id: str, config_id: str) -> bool:
        return await self._driver.write(partial(push.delete_config, agent_id, user_id, turn_id, config_id))

    async def due_pushes(self, replica_id: str, limit: int) -> DuePushes:
        return await self._driver.read(partial(push.due, replica_id, limit))

    async def claim_push(self, due: Due, replica_id: str) -> Claim | None:
        return await self._driver.write(partial(push.claim, due, replica_id))

    async def told_push(self, claim: Claim, place: int) -> Claim | None:
        return await self._driver.write(partial(push.told, claim, place))

    async def put_off_push(self, claim: Claim, delay: float, give_up_after: float) -> bool:
        return await self._driver.write(
            partial(push.put_off, claim, delay, give_up_after, self._driver.time_argument)
        )

    async def end_push(self, claim: Claim) -> None:
        await self._driver.write(partial(push.end, claim))

    async def open_pushes(self, key: SessionKey) -> Sequence[tuple[str, PushConfig]]:
        return await self._driver.read(partial(push.open_in_session, key))

    async def snapshot(self, key: SessionKey, limit: TailLimit) -> Snapshot | None:
        return await self._driver.read(partial(summaries.snapshot, key, limit))

    async def add_summary(
        self, key: SessionKey, incarnation: str, made_from: Summary | None, summary: Summary
    ) -> bool:
        return await self._driver.write(
            partial(summaries.add_summary, key, incarnation, made_from, summary), group=key
        )

    async def tail(self, key: SessionKey, before: int | None, limit: TailLimit) -> Tail:
        return await self._driver.read(partial(summaries.read_context, key, before, limit))

    async def session(self, key: SessionKey) -> Session | None:
        return await self._driver.read(partial(reading.read_session, key))

    async def sessions(
        self, *, agent_id: str | None, user_id: str | None, limit: int, cursor: str | None = None
    ) -> SessionPage:
        _check_limit(limit)
        after = self._place(cursor) if cursor else None
        found = await self._driver.read(partial(reading.list_sessions, agent_id, user_id, limit + 1, after))
        page = found[:limit]
        return SessionPage(page, _encode_cursor(page[-1]) if len(found) > limit else None)

    async def messages(
        self, key: SessionKey, *, before: int | None = None, limit: int = 100
    ) -> Sequence[StoredMessage]:
        _check_limit(limit)
        return await self._driver.read(partial(reading.read_messages, key, before, limit))

    async def queue(self, key: SessionKey) -> QueueState:
        return await self._driver.read(partial(reading.queue_state, key))

    async def create(self, key: SessionKey) -> bool:
        return await self._driver.write(partial(deletion.create, key, secrets.token_hex(16)), group=key)

    async def delete(self, key: SessionKey) -> bool:
        return await self._driver.write(remembering(partial(deletion.delete, key)), group=key) is not None

    async def register(self, replica: ReplicaRow) -> None:
        # The file's lock first: a row without one would look dead.
        if self._files:
            self._files.sweep()
            self._files.hold(replica.id)
        if self._presence:
            self._presence.expect(replica.ttl)
        await self._driver.write(partial(liveness.register, replica))

    async def beat(self, replica_id: str) -> bool:
        alive = await self._presence.beat(replica_id) if self._presence else None
        if alive is None:
            alive = await self._driver.write(partial(liveness.beat, replica_id, None))
        if not alive and self._files:
            self._files.release(replica_id)  # an id is never used again
        return alive

    async def replicas(self) -> Sequence[ReplicaRow]:
        return await self._driver.read(liveness.list_replicas)

    async def declare_dead(self, replica: ReplicaRow) -> bool:
        removed: int = await self._driver.write(remembering(partial(liveness.declare_dead, replica)))
        declared = removed == 1
        if declared and self._files:
            self._files.forget(replica.id)
        return declared

    async def retire(self, replica_id: str) -> None:
        await self._driver.write(partial(liveness.retire, replica_id))
        if self._files:
            self._files.release(replica_id)

    async def open_turns(self, replica_id: str) -> Sequence[OpenTurn]:
        return await self._driver.read(partial(liveness.open_turns, replica_id))

    async def orphans(self) -> Sequence[OpenTurn]:
        return await self._driver.read(liveness.orphans)

    async def close(self) -> None:
        await self.signals.close()
        if self._presence:
            await self._presence.close()
        await self._driver.close()

    def _place(self, cursor: str) -> Mapping[str, Any]:
        moment, agent, user, session = _decode_cursor(cursor)
        return {
            "after_time": self._driver.time_argument(moment),
            "after_agent": agent,
            "after_user": user,
            "after_session": session,
        }


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= _MAX_PAGE:
        raise InvalidError("limit", f"{limit} is not from 1 to {_MAX_PAGE}")


def _encode_cursor(session: Session) -> str:
    key = session.key
    place = [session.updated_at.isoformat(), key.agent_id, key.user_id, key.session_id]
    return base64.urlsafe_b64encode(json.dumps(place, ensure_ascii=False).encode()).decode()


def _decode_cursor(cursor: str) -> tuple[datetime, str, str, str]:
    """Of a cursor as a client sends it, which may be anything."""
    try:
        if len(cursor) > _MAX_CURSOR:
            raise ValueError("longer than any that a listing gives")
        time, *place = json.loads(base64.urlsafe_b64decode(cursor))
        if not all(isinstance(part, str) for part in place):
            raise ValueError("ids are texts")
        agent, user, session = (check_storable(part, "cursor") for part in place)
        moment = datetime.fromisoformat(time).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, RecursionError, InvalidError):
        raise InvalidError("cursor", "is not one that a listing gave; leave it out to start again") from None
    return moment, agent, user, session
