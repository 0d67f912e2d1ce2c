"""Every operation, broken off at each of its round trips: it is done once, and says so."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from hector.domain.ids import SessionKey
from hector.domain.messages import File, Text
from hector.domain.notices import Claim, Due
from hector.domain.push import PushConfig
from hector.domain.replicas import ReplicaRow
from hector.domain.turns import Begun, Joined, Lease, Queued, Reason, Repeated, Turn, TurnState
from hector.storage.opening import open_server
from hector.storage.store import SqlSessionStore
from tests.contract.actor import COMPLETED, KEY, Actor, call, dump, history, said
from tests.databases.proxy import Loss, Proxy, proxy_to
from tests.servers.database import Database

MOST_ROUND_TRIPS = 40


@dataclass
class Stage:
    """A store behind a proxy, and the same database without one."""

    proxy: Proxy
    store: SqlSessionStore
    one: Actor
    two: Actor
    key: SessionKey = KEY

    def at(self, number: int) -> "Stage":
        return replace(self, key=replace(KEY, session_id=f"s{number}"))


@pytest.fixture
async def stage(server_db: Database) -> AsyncIterator[Stage]:
    async with proxy_to(server_db.host, server_db.port) as proxy:
        settings = server_db.settings(port=proxy.port, max_conns=2, max_idle=2)
        store = await open_server(server_db.driver, settings)
        try:
            yield Stage(proxy, store, await Actor(store).join(), await Actor(store).join())
        finally:
            await store.close()


Prepare = Callable[[Stage], Awaitable[Any]]
"""Sets up, without faults, what the operation needs; its result is passed on."""
Act = Callable[[Stage, Any], Awaitable[Any]]
Check = Callable[[Stage, Any], Awaitable[None]]


async def _nothing(stage: Stage) -> Any:
    return None


async def _running(stage: Stage) -> Any:
    await stage.one.turn("before", key=stage.key)
    return await stage.one.begin("hi", "m", key=stage.key)


async def _busy(stage: Stage) -> Any:
    begun = await stage.one.begin("first", key=stage.key)
    queued = await stage.one.wait("second", "m", key=stage.key)
    return begun, queued


async def _free_with_one_waiting(stage: Stage) -> Any:
    begun, queued = await _busy(stage)
    await stage.one.answer(begun, "ok")
    return queued


async def _paused(stage: Stage) -> Any:
    return await stage.one.pause(await stage.one.begin("hi", key=stage.key))


async def _accept(stage: Stage, _: Any) -> Any:
    return await stage.one.begin("hi", "m", key=stage.key)


async def _accept_with_a_big_file(stage: Stage, _: Any) -> Any:
    parts = (Text("hi"), File(data=b"x" * 70_000))
    return await stage.one.begin("hi", "m", key=stage.key, parts=parts)


async def _has_begun(stage: Stage, result: Any) -> None:
    assert isinstance(result, Begun)
    turn = await stage.one.answer(result, "ok")
    assert await history(stage.store, stage.key) == [(1, "hi", None), (2, "ok", None)]
    assert turn.state is TurnState.COMPLETED
    again = await stage.two.send("hi", "m", key=stage.key, parts=result.own[0].message.parts)
    assert isinstance(again, Repeated)


async def _queue(stage: Stage, _: Any) -> Any:
    return await stage.one.send("third", "n", key=stage.key)


async def _is_third(stage: Stage, result: Any) -> None:
    assert isinstance(result, Queued)
    assert result.ahead == 2
    state = await stage.store.queue(stage.key)
    assert [message for _, message in state.waiting] == ["m", "n"]
    assert isinstance(await stage.two.send("third", "n", key=stage.key), Joined)


async def _append(stage: Stage, begun: Any) -> Any:
    assert isinstance(begun, Begun)
    return await stage.store.append(begun.lease, [call("look")])


async def _append_two(stage: Stage, begun: Any) -> Any:
    assert isinstance(begun, Begun)
    return await stage.store.append(begun.lease, [call("look"), call("see")])


async def _is_appended(stage: Stage, result: Any) -> None:
    assert isinstance(result, Lease)
    await stage.store.end(result, [said("ok")], COMPLETED)
    seqs = [seq for seq, _, _ in await history(stage.store, stage.key)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) == result.seq + 1


async def _end(stage: Stage, begun: Any) -> Any:
    assert isinstance(begun, Begun)
    return await stage.store.end(begun.lease, [said("ok")], COMPLETED)


async def _fail(stage: Stage, begun: Any) -> Any:
    assert isinstance(begun, Begun)
    return await stage.one.fail(begun)


async def _has_ended(stage: Stage, result: Any) -> None:
    assert isinstance(result, Turn)
    assert result.state.terminal
    turn = await stage.store.turn(stage.key.agent_id, stage.key.user_id, result.id)
    assert turn
    assert (turn.state, turn.reason) == (result.state, result.reason)
    session = await stage.store.session(stage.key)
    assert session
    assert session.running_turn_id is None
    assert len(await history(stage.store, stage.key)) == session.messages


async def _take(stage: Stage, _: Any) -> Any:
    return await stage.one.take(stage.key)


async def _is_taken(stage: Stage, result: Any) -> None:
    assert isinstance(result, Begun)
    assert (await stage.one.answer(result)).state is TurnState.COMPLETED
    assert len(await history(stage.store, stage.key)) == 4


async def _resume(stage: Stage, paused: Any) -> Any:
    assert isinstance(paused, Turn)
    return await stage.one.begin("this", "m", key=stage.key, resumes=paused.id)


async def _is_resumed(stage: Stage, result: Any) -> None:
    assert isinstance(result, Begun)
    assert (await stage.one.answer(result)).state is TurnState.COMPLETED
    assert len(await history(stage.store, stage.key)) == 4


async def _withdraw(stage: Stage, waiting: Any) -> Any:
    _, queued = waiting
    return await stage.store.withdraw(stage.key, queued.turn_id, "m", Reason.CANCELED)


async def _is_withdrawn(stage: Stage, result: Any) -> None:
    assert isinstance(result, Turn)
    assert result.state is TurnState.CANCELED
    assert (await stage.store.queue(stage.key)).waiting == []


async def _cancel(stage: Stage, begun: Any) -> Any:
    assert isinstance(begun, Begun)
    return await stage.store.cancel(stage.key, begun.lease.turn_id)


async def _create(stage: Stage, _: Any) -> Any:
    return await stage.store.create(stage.key)


async def _is_there(stage: Stage, result: Any) -> None:
    assert result is True
    assert await stage.store.session(stage.key)
    assert not await stage.store.create(stage.key)


async def _delete(stage: Stage, _: Any) -> Any:
    return await stage.store.delete(stage.key)


async def _is_gone(stage: Stage, result: Any) -> None:
    assert result is True
    assert await stage.store.session(stage.key) is None
    tombstones = (await dump(stage.store))["tombstones"]
    assert [row for row in tombstones if stage.key.session_id in row] != []
    assert len([row for row in tombstones if stage.key.session_id in row]) == 1


async def _register(stage: Stage, _: Any) -> Any:
    row = ReplicaRow(f"replica-of-{stage.key.session_id}", "x", 15, 0)
    await stage.store.register(row)
    return row


async def _is_registered(stage: Stage, row: Any) -> None:
    assert row in await stage.store.replicas()


async def _with_another(stage: Stage) -> Any:
    other = await Actor(stage.store).join()
    (row,) = [row for row in await stage.store.replicas() if row.id == other.id]
    return row


async def _declare(stage: Stage, row: Any) -> Any:
    assert isinstance(row, ReplicaRow)
    return await stage.store.declare_dead(row)


async def _is_true(stage: Stage, result: Any) -> None:
    assert result is True


async def _read(stage: Stage, begun: Any) -> Any:
    assert isinstance(begun, Begun)
    return await stage.store.turn(stage.key.agent_id, stage.key.user_id, begun.lease.turn_id)


async def _is_read(stage: Stage, result: Any) -> None:
    assert isinstance(result, Turn)
    assert [stored.seq for stored in result.messages] == [3]


WEBHOOK = PushConfig("c", "https://example.com/", "1.0")


async def _accept_with_a_webhook(stage: Stage, _: Any) -> Any:
    return await stage.one.begin("hi", "m", key=stage.key, push=WEBHOOK)


async def _has_begun_with_a_webhook(stage: Stage, result: Any) -> None:
    assert await stage.store.pushes("a", "u", result.lease.turn_id) == [WEBHOOK]
    assert await _due(stage)
    await _has_begun(stage, result)


async def _set_push(stage: Stage, begun: Any) -> Any:
    return await stage.store.set_push("a", "u", begun.lease.turn_id, WEBHOOK)


async def _is_set(stage: Stage, result: Any) -> None:
    assert result == WEBHOOK
    assert await _due(stage)


async def _due(stage: Stage) -> Due | None:
    """Of this stage's session."""
    found = (await stage.store.due_pushes(stage.one.id, 100)).due
    return next((due for due in found if due.target.key == stage.key), None)


async def _with_a_webhook(stage: Stage) -> Any:
    await stage.one.pause(await stage.one.begin(key=stage.key, push=WEBHOOK))
    return await _due(stage)


async def _claim(stage: Stage, due: Any) -> Any:
    return await stage.store.claim_push(due, stage.one.id)


async def _is_claimed(stage: Stage, result: Any) -> None:
    assert isinstance(result, Claim)
    rest = await stage.store.told_push(result, result.notices[0].place)
    assert rest
    assert await stage.store.told_push(rest, rest.notices[0].place) is None
    assert await _due(stage) is None


async def _with_a_claim(stage: Stage) -> Any:
    return await _claim(stage, await _with_a_webhook(stage))


async def _tell(stage: Stage, claim: Any) -> Any:
    return await stage.store.told_push(claim, claim.notices[0].place)


async def _is_told(stage: Stage, result: Any) -> None:
    assert isinstance(result, Claim)
    assert [notice.turn.state for notice in result.notices] == [TurnState.INPUT_REQUIRED]


async def _tell_all(stage: Stage, claim: Any) -> Any:
    return await stage.store.told_push(claim, claim.notices[-1].place)


async def _is_all_told(stage: Stage, result: Any) -> None:
    assert result is None
    assert await _due(stage) is None


async def _put_off(stage: Stage, claim: Any) -> Any:
    return await stage.store.put_off_push(claim, 0.0, 1000.0)


async def _is_put_off(stage: Stage, result: Any) -> None:
    assert result is True
    due = await _due(stage)
    assert due
    claim = await stage.store.claim_push(due, stage.one.id)
    assert claim
    assert claim.failures == 1


OPERATIONS: dict[str, tuple[Prepare, Act, Check]] = {
    "accept": (_nothing, _accept, _has_begun),
    "accept with a big file": (_nothing, _accept_with_a_big_file, _has_begun),
    "queue": (_busy, _queue, _is_third),
    "append": (_running, _append, _is_appended),
    "append two": (_running, _append_two, _is_appended),
    "end": (_running, _end, _has_ended),
    "fail": (_running, _fail, _has_ended),
    "take": (_free_with_one_waiting, _take, _is_taken),
    "resume": (_paused, _resume, _is_resumed),
    "withdraw": (_busy, _withdraw, _is_withdrawn),
    "cancel": (_running, _cancel, _has_ended),
    "create": (_nothing, _create, _is_there),
    "delete": (_running, _delete, _is_gone),
    "register": (_nothing, _register, _is_registered),
    "declare dead": (_with_another, _declare, _is_true),
    "read": (_running, _read, _is_read),
    "accept with a webhook": (_nothing, _accept_with_a_webhook, _has_begun_with_a_webhook),
    "set push": (_running, _set_push, _is_set),
    "claim push": (_with_a_webhook, _claim, _is_claimed),
    "tell push": (_with_a_claim, _tell, _is_told),
    "tell push the last": (_with_a_claim, _tell_all, _is_all_told),
    "put off push": (_with_a_claim, _put_off, _is_put_off),
}


@pytest.mark.parametrize("loss", ["request", "answer"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_is_done_once_wherever_its_connection_breaks(
    stage: Stage, name: str, loss: Loss
) -> None:
    prepare, act, check = OPERATIONS[name]
    for number in range(MOST_ROUND_TRIPS):
        here = stage.at(number)
        prepared = await prepare(here)
        stage.proxy.arm(loss, number)
        result = await act(here, prepared)
        fired = stage.proxy.fired
        stage.proxy.arm()
        await check(here, result)
        if not fired:
            assert number >= 1, "at least one round trip was broken"
            return
    pytest.fail(f"it takes more than {MOST_ROUND_TRIPS} round trips")
