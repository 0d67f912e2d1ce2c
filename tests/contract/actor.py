"""Replicas as the contract suites play them, and a look at every row of a store."""

import uuid
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import bindparam, select, update

from hector.domain.ids import SessionKey, new_turn_id
from hector.domain.memory import TailLimit
from hector.domain.messages import (
    Message,
    ModelMessage,
    StoredMessage,
    Text,
    ToolCall,
    UserMessage,
    UserPart,
    join_text,
)
from hector.domain.replicas import ReplicaRow
from hector.domain.turns import (
    Accepted,
    Arrival,
    Begun,
    Lease,
    NewMessage,
    Outcome,
    Queued,
    Reason,
    Recovery,
    Turn,
    TurnState,
)
from hector.storage.operations import MakeOperation, Operation, Result, Row, Statement, execute, fetch
from hector.storage.reading import time_of
from hector.storage.statements import DATABASE_TIME
from hector.storage.store import Driver, SqlSessionStore
from hector.storage.tables import messages, metadata

T = TypeVar("T")

KEY = SessionKey("a", "u", "s")
WINDOW = TailLimit(20)

COMPLETED = Outcome(TurnState.COMPLETED)
FAILED = Outcome(TurnState.FAILED, Reason.INTERNAL, "it broke")
PAUSED = Outcome(TurnState.INPUT_REQUIRED)

RESUME, GIVE_UP = Recovery("resume", 3), Recovery("fail", 3)


@dataclass
class Actor:
    """One replica and the clients that talk to it."""

    store: SqlSessionStore
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    async def join(self, ttl: float = 15) -> "Actor":
        await self.store.register(ReplicaRow(self.id, "test", ttl, 0))
        return self

    async def die(self) -> None:
        """Others have noticed that this replica is gone."""
        (row,) = [row for row in await self.store.replicas() if row.id == self.id]
        assert await self.store.declare_dead(row)

    def arrival(
        self,
        text: str = "hi",
        message_id: str | None = None,
        *,
        key: SessionKey = KEY,
        parts: tuple[UserPart, ...] | None = None,
        **rest: Any,
    ) -> Arrival:
        message = UserMessage(parts or (Text(text),))
        return Arrival(key, message, message_id or uuid.uuid4().hex, new_turn_id(), self.id, 1, **rest)

    async def send(self, text: str = "hi", message_id: str | None = None, **rest: Any) -> Accepted:
        return await self.store.accept(self.arrival(text, message_id, **rest), WINDOW)

    async def begin(self, text: str = "hi", message_id: str | None = None, **rest: Any) -> Begun:
        begun = await self.send(text, message_id, **rest)
        assert isinstance(begun, Begun)
        return begun

    async def wait(self, text: str = "hi", message_id: str | None = None, **rest: Any) -> Queued:
        queued = await self.send(text, message_id, **rest)
        assert isinstance(queued, Queued)
        return queued

    async def answer(self, begun: Begun, text: str = "ok") -> Turn:
        return await self.store.end(begun.lease, [said(text)], COMPLETED)

    async def turn(self, text: str = "hi", message_id: str | None = None, **rest: Any) -> Turn:
        return await self.answer(await self.begin(text, message_id, **rest), f"re: {text}")

    async def pause(self, begun: Begun, question: str = "which?") -> Turn:
        return await self.store.end(begun.lease, [said(question)], PAUSED)

    async def fail(self, begun: Begun, reason: str = Reason.INTERNAL) -> Turn:
        return await self.store.end(begun.lease, [], replace(FAILED, reason=reason))

    async def take(
        self, key: SessionKey = KEY, limit: TailLimit = WINDOW, recovery: Recovery = RESUME
    ) -> Begun | None:
        return (await self.store.take(key, self.id, limit, recovery)).begun

    async def end_orphan(self, key: SessionKey = KEY) -> str | None:
        """The id of the turn that was ended."""
        taken = await self.store.take(key, self.id, WINDOW, GIVE_UP)
        assert taken.begun is None
        return taken.ended

    async def must_take(self, key: SessionKey = KEY) -> Begun:
        begun = await self.take(key)
        assert begun
        return begun


async def have_waited(store: SqlSessionStore, message_id: str, seconds: float) -> None:
    """Make it so that the message was taken so long ago, by the database's clock."""
    age = Statement(
        update(messages)
        .where(messages.c.message_id == bindparam("id"))
        .values(created_at=bindparam("at", type_=messages.c.created_at.type))
    )
    ((now,),) = await store._driver.read(partial(fetch, DATABASE_TIME, {}))
    moment = time_of(now)
    assert moment
    taken_at = store._driver.time_argument(moment - timedelta(seconds=seconds))
    await store._driver.write(partial(execute, age, {"id": message_id, "at": taken_at}))


def said(text: str, tokens: int = 1) -> NewMessage:
    return NewMessage(ModelMessage((Text(text),)), tokens)


def call(name: str, *, idempotent: bool = False) -> NewMessage:
    return NewMessage(ModelMessage((ToolCall(uuid.uuid4().hex, name, "{}", idempotent),)))


def texts(messages: Sequence[StoredMessage]) -> list[str]:
    return [text_of(stored.message) for stored in messages]


def text_of(message: Message) -> str:
    return join_text(message.parts)


async def history(store: SqlSessionStore, key: SessionKey = KEY) -> list[tuple[int | None, str, str | None]]:
    """Seq, text and mark of all that a session holds."""
    stored = await store.messages(key, limit=10_000)
    return [(each.seq, text_of(each.message), each.unanswered) for each in stored]


async def dump(store: SqlSessionStore) -> Mapping[str, list[Row]]:
    """Every row of every table."""
    rows = {}
    for name, table in metadata.tables.items():
        found = await store._driver.read(partial(fetch, Statement(select(table)), {}))
        rows[name] = sorted(map(tuple, found), key=repr)
    return rows


class CountingDriver:
    """Counts what the operations of another driver ask of the database."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.shared = driver.shared
        self.statements = self.rows = 0

    async def write(
        self,
        make: MakeOperation[T],
        at_once: MakeOperation[T | None] | None = None,
        *,
        group: Hashable = None,
    ) -> T:
        counted = None if at_once is None else partial(self._count, at_once)
        return await self._driver.write(partial(self._count, make), counted, group=group)

    async def read(self, make: MakeOperation[T]) -> T:
        return await self._driver.read(partial(self._count, make))

    async def close(self) -> None:
        await self._driver.close()

    def time_argument(self, moment: datetime) -> Any:
        return self._driver.time_argument(moment)

    def _count(self, make: MakeOperation[T]) -> Operation[T]:
        operation = make()
        try:
            steps = next(operation)
            while True:
                results: Sequence[Result] = yield steps
                self.statements += len(steps)
                self.rows += sum(len(result.rows) for result in results)
                steps = operation.send(results)
        except StopIteration as stop:
            value: T = stop.value
            return value


def lease_of(begun: Begun, **changed: Any) -> Lease:
    return replace(begun.lease, **changed)
