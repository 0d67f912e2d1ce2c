"""What a turn costs SQLite itself, counted in the steps of its virtual machine."""

from dataclasses import replace

import pytest

from hector.domain.memory import TailLimit
from hector.domain.turns import Begun
from hector.storage.opening import open_memory
from hector.storage.sqlite import MemoryDriver
from hector.storage.store import SqlSessionStore
from tests.contract.actor import COMPLETED, KEY, Actor, said


async def _steps_of_a_turn(store: SqlSessionStore, one: Actor, length: int, limit: TailLimit) -> int:
    """Ten steps each, in a session of so many messages."""
    key = replace(KEY, session_id=str(length))
    lease = (await one.begin(key=key)).lease
    lease = await store.append(lease, [said("x") for _ in range(length - 1)])
    await store.end(lease, [], COMPLETED)
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    assert isinstance(store._driver, MemoryDriver)
    store._driver.connection.set_progress_handler(count, 10)
    begun = await store.accept(one.arrival(key=key), limit)
    await store.messages(key, limit=10)
    store._driver.connection.set_progress_handler(None, 0)
    assert isinstance(begun, Begun)
    return steps


@pytest.mark.parametrize("limit", [TailLimit(10), TailLimit(500, tokens=10)], ids=["window", "budget"])
async def test_sqlite_works_as_much_for_ten_thousand_messages_as_for_a_hundred(limit: TailLimit) -> None:
    store = open_memory()
    one = await Actor(store).join()
    short = await _steps_of_a_turn(store, one, 100, limit)
    long = await _steps_of_a_turn(store, one, 10_000, limit)
    await store.close()
    assert short > 0
    assert abs(long - short) <= short // 10
