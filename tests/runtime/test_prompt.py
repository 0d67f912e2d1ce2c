"""What replicas notice of one another, and how soon; what they ask the store for, and for whom."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from hector.domain.errors import StoreUnavailableError
from hector.domain.events import Progress
from hector.domain.replicas import OpenTurn
from hector.domain.turns import Reason, TurnState
from hector.runtime import replica
from tests.backends import BACKENDS
from tests.runtime.conftest import Node, StartNode

pytestmark = pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)


def stop_beating(node: Node) -> None:
    """What it notices from now on, no beat has told it."""
    node.opened.replica._tasks[0].cancel()


async def look_anew(node: Node) -> None:
    """Begin to wait for the next look now."""
    looking = node.opened.replica._tasks[1]
    looking.cancel()
    await asyncio.wait((looking,))
    await node.opened.replica._look()
    node.opened.replica._tasks[1] = asyncio.create_task(node.opened.replica._look_on())


async def test_a_replica_that_looks_in_vain_goes_on_beating(start: StartNode) -> None:
    node = await start(ttl=0.6)
    looked = asyncio.Event()

    async def hangs() -> Sequence[OpenTurn]:
        looked.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    node.store.orphans = hangs  # type: ignore[method-assign]
    await looked.wait()
    (before,) = await node.store.replicas()
    while (await node.store.replicas())[0].counter < before.counter + 3:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("deletes", [False, True])
async def test_who_runs_a_turn_is_told_that_it_is_canceled(
    start: StartNode, monkeypatch: pytest.MonkeyPatch, deletes: bool
) -> None:
    one, two = await start(crashes=False), await start(crashes=False)
    while not one.opened.runner.wakes.others:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.01)
    handle = await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    if one.store.signals.prompt:  # otherwise it looks
        monkeypatch.setattr(replica, "_LOOK", 1000.0)
        await look_anew(one)
    stop_beating(one)
    stop_beating(two)
    if deletes:
        await two.runtime.delete_session(handle.key)
    else:
        await two.runtime.cancel("a", "u", handle.turn_id)
    turn = await handle.result()
    reason = Reason.SESSION_DELETED if deletes else Reason.CANCELED
    assert (turn.state, turn.reason) == (TurnState.CANCELED, reason)


async def test_who_was_alone_is_told_of_a_newcomer(start: StartNode) -> None:
    one = await start()
    if one.store.signals.prompt:  # otherwise it looks when it beats
        stop_beating(one)
    assert not one.opened.runner.wakes.others
    await start()
    while not one.opened.runner.wakes.others:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.01)


async def test_one_follower_serves_all_who_listen_and_ends_with_them(start: StartNode) -> None:
    one, two = await start(), await start()
    handle = await one.send("stream 2 ab\nwait g")
    await one.model.gate("g").reached.wait()
    followers = two.opened.runner._followers.followed
    listening = [await two.runtime.listen("a", "u", handle.turn_id) for _ in range(3)]
    assert followers.total() == 0, "nobody listens yet"
    told = [each.told() for each in listening]
    for each in told:
        await anext(each)
    assert followers.total() == 1
    for each in told:
        await each.aclose()
    while followers:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)
    async with aclosing(listening[0].told()) as again:
        await anext(again)
        while not followers:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        assert followers.total() == 1
    one.model.gate("g").opened.set()
    assert (await listening[1].result()).id == handle.turn_id


async def test_who_listens_to_what_waits_here_asks_nobody(start: StartNode) -> None:
    node = await start()
    await node.send("wait g")
    waiting = await node.send("say 1")
    listening = await node.runtime.listen("a", "u", waiting.turn_id)
    node.model.gate("g").opened.set()
    assert (await listening.result()).reply == "1"
    assert not node.opened.runner._followers.followed
    assert listening.feed is waiting.feed


async def test_who_listens_elsewhere_gets_the_end_although_the_store_was_away(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start(), await start()
    handle = await one.send("wait g\nsay 1")
    await one.model.gate("g").reached.wait()
    progress, left = two.store.progress, [2]

    async def fails_twice(*asked: Any) -> Progress | None:
        if left[0]:
            left[0] -= 1
            raise StoreUnavailableError("it is away")
        return await progress(*asked)

    monkeypatch.setattr(two.store, "progress", fails_twice)
    listening = await two.runtime.listen("a", "u", handle.turn_id)
    ending = asyncio.create_task(listening.result())
    while left[0]:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)
    one.model.gate("g").opened.set()
    assert (await ending).reply == "1"
