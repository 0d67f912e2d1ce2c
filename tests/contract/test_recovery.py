"""What a replica that died, or was stopped, leaves, and what others make of it."""

import pytest

from hector.domain.errors import LeaseLostError
from hector.domain.messages import ModelMessage, ToolCall, ToolMessage, ToolResult
from hector.domain.replicas import OpenTurn
from hector.domain.turns import Begun, Joined, NewMessage, Reason, Recovery, Repeated, Taken, TurnState
from hector.storage.store import SqlSessionStore
from tests.contract.actor import (
    COMPLETED,
    GIVE_UP,
    KEY,
    RESUME,
    WINDOW,
    Actor,
    call,
    have_waited,
    history,
    said,
    texts,
)

TWICE = Recovery("resume", 2)


def result(of: NewMessage, text: str = "done") -> NewMessage:
    assert isinstance(of.message, ModelMessage)
    (asked,) = of.message.calls
    return NewMessage(ToolMessage(ToolResult(asked.id, asked.name, text)))


# --- given up


async def test_a_turn_whose_replica_is_dead_is_ended_once(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    begun = await one.begin("hello", "m1")
    orphan = OpenTurn(KEY, begun.lease.turn_id, working=True)
    assert list(await store.orphans()) == []
    assert await two.end_orphan() is None, "its replica lives"
    await one.die()
    assert list(await store.orphans()) == [orphan]
    assert await two.end_orphan() == begun.lease.turn_id
    assert await two.end_orphan() is None
    assert list(await store.orphans()) == []
    turn = await store.turn("a", "u", begun.lease.turn_id)
    assert turn
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.FAILED, Reason.CRASHED, True)
    assert await history(store) == [(1, "hello", Reason.CRASHED)]
    again = await two.begin("hello", "m1")
    assert again.lease.epoch > begun.lease.epoch + 1
    await two.answer(again)


@pytest.mark.parametrize(("idempotent", "reason"), [(True, Reason.CRASHED), (False, Reason.TOOL_UNKNOWN)])
async def test_an_orphan_that_called_a_tool_is_not_asked_again(
    store: SqlSessionStore, one: Actor, two: Actor, idempotent: bool, reason: str
) -> None:
    begun = await one.begin("pay", "m1")
    asked = call("pay", idempotent=idempotent)
    lease = await store.append(begun.lease, [asked])
    await store.append(lease, [result(asked)])
    await one.die()
    assert await two.end_orphan()
    turn = await store.turn("a", "u", lease.turn_id)
    assert turn
    assert (turn.reason, turn.retryable) == (reason, idempotent)
    assert ("pay" in (turn.error or "")) == (not idempotent)
    assert [mark for _, _, mark in await history(store)] == [reason] * 3
    again = await two.send("pay", "m1")
    assert isinstance(again, Begun if idempotent else Repeated)


async def test_an_orphan_of_a_resumed_turn_is_marked_in_all_its_runs(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    paused = await two.pause(await two.begin("order"))
    await two.turn("between")
    await one.begin("red", resumes=paused.id)
    await one.die()
    assert await two.end_orphan() == paused.id
    assert [mark for _, _, mark in await history(store)] == [
        Reason.CRASHED,
        Reason.CRASHED,
        None,
        None,
        Reason.CRASHED,
    ]


async def test_what_waits_begins_when_the_orphan_before_it_is_ended(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    running = await one.begin("first")
    waiting = await one.wait("second")
    await one.die()
    assert set(await store.orphans()) == {
        OpenTurn(KEY, running.lease.turn_id, working=True),
        OpenTurn(KEY, waiting.turn_id, working=False),
    }
    taken = await store.take(KEY, two.id, WINDOW, GIVE_UP)
    assert taken.begun
    assert taken.ended == running.lease.turn_id
    assert (taken.begun.lease.turn_id, taken.begun.lease.owner) == (waiting.turn_id, two.id)
    assert list(await store.orphans()) == []
    await two.answer(taken.begun)


async def test_a_waiting_orphan_is_not_ended(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    running = await one.begin("first")
    waiting = await one.wait("second")
    await one.answer(running)
    await one.die()
    assert (await two.must_take()).lease.turn_id == waiting.turn_id


async def test_what_waited_too_long_is_withdrawn_by_who_would_begin_it(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    paused = await one.pause(await one.begin("order"))
    running = await one.begin("first")
    answer = await one.wait("red", "m1", resumes=paused.id)
    late = await one.wait("late", "m2")
    last = await one.wait("last", "m3")
    for message_id in ("m1", "m2"):
        await have_waited(store, message_id, 60)
    await one.answer(running)
    assert await store.take(KEY, two.id, WINDOW, RESUME, max_wait=50) == Taken(), (
        "who took it lives, and minds it"
    )
    await one.die()
    taken = await store.take(KEY, two.id, WINDOW, RESUME, max_wait=50)
    assert taken.withdrawn == (answer.turn_id, late.turn_id)
    assert taken.begun
    assert taken.begun.lease.turn_id == last.turn_id
    turn = await store.turn("a", "u", late.turn_id)
    assert turn
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.CANCELED, Reason.MAX_WAIT, True)
    turn = await store.turn("a", "u", paused.id)
    assert turn
    assert (turn.state, texts(turn.messages)) == (TurnState.INPUT_REQUIRED, ["order", "which?"])
    session = await store.session(KEY)
    assert session
    assert session.waiting == 0
    again = await two.wait("red", "m1", resumes=paused.id)
    assert again.turn_id == paused.id


async def test_what_did_not_wait_too_long_begins(store: SqlSessionStore, one: Actor) -> None:
    running = await one.begin("first")
    waiting = await one.wait("second", "m2")
    await have_waited(store, "m2", 40)
    await one.answer(running)
    taken = await store.take(KEY, one.id, WINDOW, RESUME, max_wait=50)
    assert taken.begun
    assert (taken.begun.lease.turn_id, taken.withdrawn) == (waiting.turn_id, ())


async def test_how_long_an_orphan_has_waited_is_told(store: SqlSessionStore, one: Actor) -> None:
    await one.begin("first")
    await one.wait("second", "m2")
    await have_waited(store, "m2", 60)
    await one.die()
    working, waits = sorted(await store.orphans(), key=lambda orphan: orphan.waited)
    assert (working.working, working.waited) == (True, 0)
    assert (waits.message_id, 60 <= waits.waited < 90) == ("m2", True)
    assert list(await store.open_turns(one.id)) == list(await store.orphans())


async def test_a_paused_turn_has_no_replica(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    paused = await one.pause(await one.begin("order"))
    await one.die()
    assert list(await store.orphans()) == []
    assert (await two.begin("red", resumes=paused.id)).lease.owner == two.id


# --- run on


async def test_an_orphan_is_run_on_from_its_last_stored_step(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    await two.turn("before")
    begun = await one.begin("pay", "m1")
    asked = call("look", idempotent=True)
    lease = await store.append(begun.lease, [asked])
    lease = await store.append(lease, [result(asked, "seen")])
    await one.die()
    again = await two.must_take()
    assert (again.lease.turn_id, again.lease.owner) == (lease.turn_id, two.id)
    assert (again.lease.attempt, again.lease.run_seq, again.lease.seq) == (2, begun.lease.run_seq, lease.seq)
    assert again.lease.epoch > lease.epoch
    assert [stored.message for stored in again.own] == [
        begun.own[0].message,
        asked.message,
        result(asked, "seen").message,
    ]
    assert texts(again.tail.messages) == ["before", "re: before"]
    turn = await two.answer(again, "paid")
    assert (turn.state, turn.attempt) == (TurnState.COMPLETED, 2)
    assert [(seq, mark) for seq, _, mark in await history(store)] == [(seq, None) for seq in range(1, 7)]
    repeated = await two.send("pay", "m1")
    assert isinstance(repeated, Repeated)
    assert repeated.turn.reply == "paid"


async def test_who_lost_a_turn_to_its_next_attempt_writes_nothing(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    begun = await one.begin("hello")
    await one.die()
    again = await two.must_take()
    with pytest.raises(LeaseLostError):
        await store.append(begun.lease, [said("zombie")])
    with pytest.raises(LeaseLostError):
        await store.end(begun.lease, [said("zombie")], COMPLETED)
    with pytest.raises(LeaseLostError):
        await store.hand_over(begun.lease)
    await two.answer(again)
    assert [text for _, text, _ in await history(store)] == ["hello", "ok"]


async def test_an_orphan_is_run_as_often_as_is_allowed_and_then_fails(
    store: SqlSessionStore, two: Actor
) -> None:
    begun = None
    for attempt in (1, 2):
        doomed = await Actor(store).join()
        begun = await doomed.begin("hello") if attempt == 1 else await doomed.take(recovery=TWICE)
        assert begun
        assert begun.lease.attempt == attempt
        await doomed.die()
    taken = await store.take(KEY, two.id, WINDOW, TWICE)
    assert begun
    assert (taken.begun, taken.ended) == (None, begun.lease.turn_id)
    turn = await store.turn("a", "u", begun.lease.turn_id)
    assert turn
    assert (turn.reason, turn.attempt, turn.retryable) == (Reason.CRASHED, 2, True)
    assert "turns.max_attempts" in (turn.error or "")


async def test_runs_that_a_pause_ended_are_not_counted_as_attempts(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    paused = await two.pause(await two.begin("order"))
    paused = await two.pause(await two.begin("red", resumes=paused.id))
    begun = await one.begin("large", resumes=paused.id)
    assert begun.lease.attempt == 3, "each run has a number of its own"
    await one.die()
    again = await two.take(recovery=TWICE)
    assert again
    assert (again.lease.attempt, again.lease.resumed) == (4, True)
    assert texts(again.own) == ["order", "which?", "red", "which?", "large"]
    await two.answer(again)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_call_without_a_result_is_repeated_only_where_that_does_no_harm(
    store: SqlSessionStore, one: Actor, two: Actor, idempotent: bool
) -> None:
    begun = await one.begin("pay", "m1")
    asked = NewMessage(ModelMessage((ToolCall("c1", "pay", '{"sum": 7}', idempotent),)))
    await store.append(begun.lease, [asked])
    await one.die()
    taken = await store.take(KEY, two.id, WINDOW, RESUME)
    if idempotent:
        assert taken.begun
        assert taken.begun.own[-1].message == asked.message
        return
    assert taken.begun is None
    turn = await store.turn("a", "u", begun.lease.turn_id)
    assert turn
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.FAILED, Reason.TOOL_UNKNOWN, False)
    assert 'pay({"sum": 7})' in (turn.error or "")


async def test_a_leaked_turn_is_run_on_by_its_own_replica(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("hello")
    assert await one.take() is None, "as far as the store knows it runs"
    again = (await store.take(KEY, one.id, WINDOW, RESUME, begun.lease.turn_id)).begun
    assert again
    assert (again.lease.turn_id, again.lease.attempt) == (begun.lease.turn_id, 2)
    await one.answer(again)


async def test_nobody_takes_what_another_runs_for_leaked(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    begun = await one.begin("hello")
    assert (await store.take(KEY, two.id, WINDOW, RESUME, begun.lease.turn_id)).begun is None
    await one.answer(begun)


async def test_an_arrival_whose_turn_was_taken_over_does_not_begin_it_again(
    store: SqlSessionStore, one: Actor
) -> None:
    arrival = one.arrival("hello")
    begun = await store.accept(arrival, WINDOW)
    assert isinstance(begun, Begun)
    assert isinstance(await store.accept(arrival, WINDOW), Begun), "its commit may have got no answer"
    again = (await store.take(KEY, one.id, WINDOW, RESUME, begun.lease.turn_id)).begun
    assert again
    assert isinstance(await store.accept(arrival, WINDOW), Joined)
    await one.answer(again)


async def test_the_orphan_comes_before_what_waits(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    running = await one.begin("first")
    waiting = await two.wait("second")
    await one.die()
    again = await two.must_take()
    assert again.lease.turn_id == running.lease.turn_id
    assert await two.take() is None
    await two.answer(again)
    assert (await two.must_take()).lease.turn_id == waiting.turn_id


async def test_a_session_whose_turn_was_deleted_by_hand_goes_on(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    begun = await one.begin("first")
    waiting = await two.wait("second")
    await _forget_turn(store, begun.lease.turn_id)
    await one.die()
    assert (await two.must_take()).lease.turn_id == waiting.turn_id


async def _forget_turn(store: SqlSessionStore, turn_id: str) -> None:
    from sqlalchemy import delete

    from hector.storage.operations import Operation, Statement, execute
    from hector.storage.tables import turns

    statement = Statement(delete(turns).where(turns.c.id == turn_id))

    def forget() -> Operation[int]:
        return (yield from execute(statement, {}))

    assert await store._driver.write(forget) == 1


# --- handed over


async def test_a_turn_that_was_handed_over_is_run_on_by_another_while_its_replica_lives(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    begun = await one.begin("hello")
    await store.hand_over(begun.lease)
    assert list(await store.orphans()) == [OpenTurn(KEY, begun.lease.turn_id, working=True)]
    with pytest.raises(LeaseLostError):
        await store.end(begun.lease, [said("late")], COMPLETED)
    again = await two.must_take()
    assert (again.lease.turn_id, again.lease.attempt) == (begun.lease.turn_id, 2)
    await two.answer(again)
    assert list(await store.orphans()) == []


async def test_handing_over_is_no_crash(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    begun = await one.begin("hello")
    for attempt in range(2, 6):
        await store.hand_over(begun.lease)
        again = await two.take(recovery=TWICE)
        assert again
        assert again.lease.attempt == attempt
        begun = again
    await two.answer(begun)


async def test_a_turn_that_was_handed_over_can_be_canceled(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    begun = await one.begin("hello")
    await store.hand_over(begun.lease)
    canceled = await store.cancel(KEY, begun.lease.turn_id)
    assert canceled
    assert canceled.state is TurnState.CANCELED
    assert await two.take() is None


async def test_a_repeat_joins_what_was_handed_over(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    begun = await one.begin("hello", "m1")
    await store.hand_over(begun.lease)
    joined = await two.send("hello", "m1")
    assert joined.turn.id == begun.lease.turn_id  # type: ignore[union-attr]
    assert (await two.wait("next")).ahead == 1
