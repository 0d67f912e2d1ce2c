"""What a replica makes of the lock of another: the same on every database, but for the time that it takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from hector.domain.agents import Agent
from hector.runtime import replica
from hector.runtime.replica import Replica
from hector.runtime.turns import TurnRunner
from hector.runtime.watch import Watch
from hector.storage.store import SqlSessionStore
from tests.backends import BACKENDS, Backend

pytestmark = pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)

_TTL = 3000.0
"""Seconds: nobody is found dead by it."""


class Node:
    def __init__(self, store: SqlSessionStore) -> None:
        assert store.locks
        self.store = store
        agents: dict[str, Agent] = {}
        self.runner = TurnRunner(store, agents.get)
        self.replica = Replica(store, self.runner, store.locks, label="test", ttl=_TTL)
        # As if each look came a missed beat after the one before.
        self.replica._watch._stillness = lambda ttl: 0.0

    def lose_lock(self) -> None:
        """As the end of the process would, or of its connection."""
        if files := self.store._files:
            files.release(self.runner.replica_id)
        if presence := self.store._presence:
            assert presence.connection._connection is not None
            presence.connection._connection.abort()

    async def sees(self) -> list[str]:
        """Who is left when it has cleared up."""
        await self.replica._clear_up()
        return [row.id for row in await self.store.replicas()]


@pytest.fixture
async def nodes(backend: Backend) -> AsyncIterator[tuple[Node, Node]]:
    await backend.clear()
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            node = Node(await backend.open())
            stack.push_async_callback(node.store.close)
            await node.replica.start()
            stack.push_async_callback(node.replica.stop)
            stack.push_async_callback(node.runner.close, 0.0)
            await node.replica._beat()
            found.append(node)
        one, two = found
        yield one, two


async def test_a_replica_that_lost_its_lock_and_does_not_beat_is_removed(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    assert await two.sees() == sorted([one.runner.replica_id, two.runner.replica_id])
    one.lose_lock()
    while await two.sees() != [two.runner.replica_id]:
        pass  # a server takes a moment to notice


async def test_a_replica_that_holds_its_lock_and_does_not_beat_is_not(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    for _ in range(3):
        assert one.runner.replica_id in await two.sees()


async def test_a_replica_that_was_removed_holds_a_lock_again(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.lose_lock()
    while await two.sees() != [two.runner.replica_id]:
        pass
    await one.replica._beat()
    await one.replica._beat()
    for _ in range(3):
        assert one.runner.replica_id in await two.sees()


async def test_a_suspect_is_looked_at_again_as_soon_as_it_can_be_judged(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "_FIRST_BEAT", _TTL)
    one, two = nodes
    one.lose_lock()
    assert two.store.locks
    while not await two.store.locks.freed(await two.store.replicas()):
        pass
    await two.replica.stop()
    two.replica._watch = Watch(_TTL, lambda ttl: 0.2)
    await two.replica.start()  # sees the other for the first time; its first beat is far away
    while one.runner.replica_id in {row.id for row in await two.store.replicas()}:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
