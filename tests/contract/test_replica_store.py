"""The contract of `ReplicaStore`: who lives, who was declared dead, and what is whose."""

import asyncio
import uuid
from dataclasses import replace

from hector.domain.replicas import OpenTurn, ReplicaRow
from hector.storage.store import SqlSessionStore
from tests.contract.actor import KEY, Actor


async def test_a_replica_is_there_from_its_start_to_its_end(store: SqlSessionStore) -> None:
    row = ReplicaRow(str(uuid.uuid4()), "blade é\U0001f5a5", 0.5, 0)
    await store.register(row)
    assert list(await store.replicas()) == [row]
    await store.retire(row.id)
    assert list(await store.replicas()) == []
    await store.retire(row.id)


async def test_a_beat_raises_the_counter(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    assert await store.beat(one.id)
    assert await store.beat(one.id)
    assert {row.id: row.counter for row in await store.replicas()} == {one.id: 2, two.id: 0}


async def test_a_replica_without_a_row_learns_it_from_its_beat(store: SqlSessionStore, one: Actor) -> None:
    await one.die()
    assert not await store.beat(one.id)
    assert list(await store.replicas()) == [], "a beat makes no row"


async def test_death_is_declared_only_of_the_counter_that_was_seen(
    store: SqlSessionStore, one: Actor
) -> None:
    (seen,) = await store.replicas()
    await store.beat(one.id)
    assert not await store.declare_dead(seen)
    assert await store.beat(one.id)
    (seen,) = await store.replicas()
    assert not await store.declare_dead(replace(seen, counter=seen.counter + 1))
    assert await store.declare_dead(seen)
    assert not await store.declare_dead(seen), "once"


async def test_one_of_many_declares_a_death(store: SqlSessionStore, one: Actor) -> None:
    (seen,) = await store.replicas()
    declared = await asyncio.gather(*(store.declare_dead(seen) for _ in range(5)))
    assert sorted(declared) == [False] * 4 + [True]


async def test_open_turns_are_what_a_replica_runs_and_what_waits_for_it(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    other = replace(KEY, session_id="t")
    running, theirs = await one.begin(), await two.begin(key=other)
    waiting = await one.wait()
    assert list(await store.open_turns(one.id)) == [
        OpenTurn(KEY, running.lease.turn_id, working=True),
        OpenTurn(KEY, waiting.turn_id, working=False),
    ]
    await one.answer(running)
    taken = await one.must_take()
    assert list(await store.open_turns(one.id)) == [OpenTurn(KEY, taken.lease.turn_id, working=True)]
    await one.pause(taken)
    assert list(await store.open_turns(one.id)) == []
    await two.die()
    assert await one.end_orphan(other) == theirs.lease.turn_id
    assert list(await store.open_turns(two.id)) == []


async def test_a_replica_that_retires_leaves_its_open_turns_as_orphans(
    store: SqlSessionStore, one: Actor
) -> None:
    running = await one.begin()
    waiting = await one.wait()
    await store.retire(one.id)
    assert set(await store.orphans()) == {
        OpenTurn(KEY, running.lease.turn_id, working=True),
        OpenTurn(KEY, waiting.turn_id, working=False),
    }


async def test_what_is_ended_or_withdrawn_is_nobodys(store: SqlSessionStore, one: Actor) -> None:
    running = await one.begin()
    waiting = await one.wait("later", "m2")
    await store.withdraw(KEY, waiting.turn_id, "m2", "max_wait")
    await one.fail(running)
    await store.retire(one.id)
    assert list(await store.orphans()) == []
