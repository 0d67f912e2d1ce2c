"""The contract of `TurnStore`: begin, queue, repeats, pauses, the guard, orphans."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import column, delete

from hector.domain.errors import (
    BusyError,
    ConflictError,
    LeaseLostError,
    NotFoundError,
    NotPausedError,
    QueueFullError,
)
from hector.domain.ids import SessionKey
from hector.domain.memory import TailLimit
from hector.domain.messages import Data, File, ModelMessage, Text, ToolMessage, ToolResult, Usage, UserMessage
from hector.domain.turns import (
    Begun,
    Joined,
    NewMessage,
    Outcome,
    Queued,
    Reason,
    Repeated,
    Turn,
    TurnState,
)
from hector.storage.operations import Statement, execute
from hector.storage.store import SqlSessionStore
from hector.storage.tables import metadata
from tests.contract.actor import (
    COMPLETED,
    FAILED,
    KEY,
    PAUSED,
    WINDOW,
    Actor,
    CountingDriver,
    call,
    dump,
    history,
    lease_of,
    said,
    text_of,
    texts,
)

# --- a plain turn


@pytest.mark.parametrize("outcome", [COMPLETED, FAILED, PAUSED])
async def test_an_end_is_told_with_the_time_that_is_stored(
    store: SqlSessionStore, one: Actor, outcome: Outcome
) -> None:
    begun = await one.begin()
    told = await store.end(begun.lease, [said("ok")], outcome)
    stored = await store.turn(KEY.agent_id, KEY.user_id, begun.lease.turn_id)
    assert stored
    assert told.ended_at == stored.ended_at
    assert told.ended_at


async def test_the_first_message_makes_the_session_and_begins_its_turn(
    store: SqlSessionStore, one: Actor
) -> None:
    arrival = one.arrival("hello", "m1")
    begun = await store.accept(arrival, WINDOW)
    assert isinstance(begun, Begun)
    assert begun.new_session
    assert begun.earlier_messages == 0
    assert begun.tail.messages == ()
    assert [(each.seq, each.message) for each in begun.own] == [(1, arrival.message)]
    assert (begun.lease.turn_id, begun.lease.owner, begun.lease.attempt) == (arrival.turn_id, one.id, 1)
    turn = await store.turn("a", "u", arrival.turn_id)
    assert turn
    assert (turn.state, turn.key, texts(turn.messages)) == (TurnState.WORKING, KEY, ["hello"])


async def test_a_turn_is_stored_whole_when_it_ends(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("hello")
    lease = await store.append(begun.lease, [call("look", idempotent=True)])
    result = NewMessage(ToolMessage(ToolResult("1", "look", "seen")))
    lease = await store.append(lease, [result])
    ended = await store.end(lease, [said("done")], Outcome(TurnState.COMPLETED, usage=Usage(3, 4)))
    assert (ended.state, ended.reply, ended.usage) == (TurnState.COMPLETED, "done", Usage(3, 4))
    turn = await store.turn("a", "u", ended.id)
    assert turn
    assert (turn.state, turn.usage, turn.reply) == (TurnState.COMPLETED, Usage(3, 4), "done")
    assert [stored.seq for stored in turn.messages] == [1, 2, 3, 4]
    assert turn.started_at
    assert turn.ended_at
    assert turn.created_at
    assert turn.created_at <= turn.started_at <= turn.ended_at
    assert await history(store) == [(1, "hello", None), (2, "", None), (3, "", None), (4, "done", None)]


async def test_the_next_turn_is_given_what_was_said_before_it(store: SqlSessionStore, one: Actor) -> None:
    await one.turn("one")
    begun = await one.begin("two")
    assert not begun.new_session
    assert begun.earlier_messages == 2
    assert texts(begun.tail.messages) == ["one", "re: one"]
    assert texts(begun.own) == ["two"]
    assert begun.lease.epoch == 2


async def test_the_tail_is_no_longer_than_its_limits(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("start")
    await store.end(begun.lease, [said(str(n), tokens=10) for n in range(100)], COMPLETED)

    async def tail(limit: TailLimit) -> list[str]:
        begun = await store.accept(one.arrival("next"), limit)
        assert isinstance(begun, Begun)
        await store.end(begun.lease, [], FAILED)
        return [text for text in texts(begun.tail.messages) if text != "next"]

    assert await tail(TailLimit(3)) == ["97", "98", "99"]
    assert await tail(TailLimit(0)) == []
    # The message that crosses the limit is given, so that it can be cut.
    assert (await tail(TailLimit(1000, tokens=25)))[0] == "97"
    assert len(await tail(TailLimit(1000, tokens=400))) == 40
    assert (await tail(TailLimit(1000, tokens=100_000)))[0] == "start"


async def test_seq_has_no_gaps_and_follows_the_order_of_the_turns(store: SqlSessionStore, one: Actor) -> None:
    for text in ("a", "b", "c"):
        await one.turn(text)
    stored = await store.messages(KEY)
    assert [each.seq for each in stored] == [1, 2, 3, 4, 5, 6]
    assert texts(stored) == ["a", "re: a", "b", "re: b", "c", "re: c"]


async def test_a_failed_turn_is_marked_and_frees_its_session(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("hello")
    lease = await store.append(begun.lease, [call("look")])
    turn = await store.end(
        lease, [], Outcome(TurnState.FAILED, "model_error", "no \0 answer \ud800", retryable=True)
    )
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.FAILED, "model_error", True)
    assert await history(store) == [(1, "hello", "model_error"), (2, "", "model_error")]
    stored = await store.turn("a", "u", turn.id)
    assert stored
    assert stored.error == "no \ufffd answer \ufffd"
    begun = await one.begin("again")
    assert [each.unanswered for each in begun.tail.messages] == ["model_error", "model_error"]


async def test_a_turn_belongs_to_its_agent_and_user(store: SqlSessionStore, one: Actor) -> None:
    turn = await one.turn()
    assert await store.turn("a", "u", turn.id)
    assert await store.turn("b", "u", turn.id) is None
    assert await store.turn("a", "v", turn.id) is None


# --- a busy session


async def test_a_message_to_a_busy_session_waits_its_turn(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    running = await one.begin("first")
    second, third = await two.wait("second"), await one.wait("third")
    assert (second.ahead, third.ahead) == (1, 2)
    assert second.ticket < third.ticket
    session = await store.session(KEY)
    assert session
    assert (session.waiting, session.messages, session.running_turn_id) == (2, 1, running.lease.turn_id)
    queue = await store.queue(KEY)
    assert len(queue.waiting) == 2
    waiting = await store.turn("a", "u", second.turn_id)
    assert waiting
    assert (waiting.state, texts(waiting.messages), waiting.messages[0].seq) == (
        TurnState.SUBMITTED,
        ["second"],
        None,
    )
    assert await one.take() is None, "the session is not free"
    await one.answer(running)
    assert await one.take() is None, "the lowest ticket is the other replica's"
    begun = await two.must_take()
    assert (begun.lease.turn_id, texts(begun.own)) == (second.turn_id, ["second"])
    assert texts(begun.tail.messages) == ["first", "ok"]
    await two.answer(begun)
    begun = await one.must_take()
    assert texts(begun.own) == ["third"]
    await one.answer(begun)
    assert await one.take() is None
    session = await store.session(KEY)
    assert session
    assert (session.waiting, session.running_turn_id) == (0, None)
    assert [seq for seq, _, _ in await history(store)] == [1, 2, 3, 4, 5, 6]


async def test_a_new_message_does_not_overtake_one_that_waits(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    running = await one.begin("first")
    await two.wait("second")
    await one.answer(running)
    third = await one.wait("third")
    assert third.ahead == 1
    assert texts((await two.must_take()).own) == ["second"]


async def test_a_busy_session_refuses_at_once_where_its_agent_does_not_queue(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    running = await one.begin("first")
    before = await dump(store)
    with pytest.raises(BusyError) as busy:
        await one.send("second", on_busy="reject")
    assert busy.value.turn_id == running.lease.turn_id
    assert await dump(store) == before
    await two.wait("waits")
    await one.answer(running)
    with pytest.raises(BusyError, match="busy with a message that waits"):
        await one.send("third", on_busy="reject")


async def test_a_full_queue_refuses(store: SqlSessionStore, one: Actor) -> None:
    await one.begin("first")
    for _ in range(3):
        await one.wait(max_waiting=3)
    before = await dump(store)
    with pytest.raises(QueueFullError) as full:
        await one.send(max_waiting=3)
    assert full.value.waiting == 3
    assert await dump(store) == before


@pytest.mark.parametrize("limit", [{"on_busy": "reject"}, {"max_waiting": 1}])
async def test_nobody_is_refused_for_what_the_dead_left(
    store: SqlSessionStore, one: Actor, two: Actor, limit: dict[str, Any]
) -> None:
    running = await one.begin("first")
    await one.wait("second")
    await one.die()
    queued = await two.wait("third", **limit)
    assert queued.ahead == 2
    again = await two.must_take()
    assert again.lease.turn_id == running.lease.turn_id
    with pytest.raises((BusyError, QueueFullError)):
        await two.send("fourth", **limit)
    await two.answer(again)
    # What waits first is the dead one's.
    assert (await two.wait("fourth", **limit)).ahead == 2
    for text in ("second", "third", "fourth"):
        begun = await two.must_take()
        assert texts(begun.own) == [text]
        await two.answer(begun)


async def test_other_sessions_do_not_wait(store: SqlSessionStore, one: Actor) -> None:
    await one.begin()
    for key in (
        replace(KEY, session_id="t"),
        replace(KEY, user_id="v"),
        replace(KEY, agent_id="b"),
    ):
        assert (await one.begin(key=key)).new_session


async def test_a_message_that_waited_too_long_leaves_the_queue(store: SqlSessionStore, one: Actor) -> None:
    running = await one.begin("first")
    second = await one.wait("second", "m2")
    await one.wait("third", "m3")
    turn = await store.withdraw(KEY, second.turn_id, "m2", Reason.MAX_WAIT)
    assert turn
    assert (turn.state, turn.reason, turn.retryable, texts(turn.messages)) == (
        TurnState.CANCELED,
        Reason.MAX_WAIT,
        True,
        ["second"],
    )
    assert await store.withdraw(KEY, second.turn_id, "m2", Reason.MAX_WAIT) is None, "only once"
    session = await store.session(KEY)
    assert session
    assert session.waiting == 1
    assert [message for _, message in (await store.queue(KEY)).waiting] == ["m3"]
    await one.answer(running)
    assert texts((await one.must_take()).own) == ["third"]
    assert [text for _, text, _ in await history(store)] == ["first", "ok", "third"]


async def test_a_message_that_has_begun_is_not_withdrawn(store: SqlSessionStore, one: Actor) -> None:
    running = await one.begin("first", "m1")
    assert await store.withdraw(KEY, running.lease.turn_id, "m1", Reason.MAX_WAIT) is None
    assert await store.withdraw(replace(KEY, session_id="none"), "t", "m", Reason.MAX_WAIT) is None


async def test_a_queue_that_an_operator_emptied_by_hand_is_no_obstacle(
    store: SqlSessionStore, one: Actor
) -> None:
    running = await one.begin("first")
    await one.wait("second", "m2")
    emptied = Statement(delete(metadata.tables["messages"]).where(column("seq").is_(None)))
    await store._driver.write(partial(execute, emptied, {}))
    await one.answer(running)
    assert await one.take() is None
    assert texts((await one.begin("third")).own) == ["third"]


async def test_many_messages_at_once_run_one_after_the_other(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    actors = [one, two] * 10
    accepted = await asyncio.gather(*(actor.send(str(n)) for n, actor in enumerate(actors)))
    begun = [each for each in accepted if isinstance(each, Begun)]
    tickets = [each.ticket for each in accepted if isinstance(each, Queued)]
    assert len(begun) == 1
    assert sorted(tickets) == list(range(1, 20))
    await one.answer(begun[0])
    order = []
    for _ in range(19):
        taken = [(actor, got) for actor in (one, two) if (got := await actor.take())]
        ((actor, got),) = taken
        order.append(
            next(e.ticket for e in accepted if isinstance(e, Queued) and e.turn_id == got.lease.turn_id)
        )
        await actor.answer(got)
    assert order == sorted(tickets)
    assert [seq for seq, _, _ in await history(store)] == list(range(1, 41))


# --- repeats


async def test_a_repeat_of_an_answered_message_gives_the_answer(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    turn = await one.turn("hello", "m1")
    await one.turn("later")
    before = await dump(store)
    again = await two.send("hello", "m1")
    assert isinstance(again, Repeated)
    assert (again.turn.id, again.turn.state, again.turn.reply) == (turn.id, TurnState.COMPLETED, "re: hello")
    assert await dump(store) == before


async def test_a_repeat_of_a_running_message_joins_its_turn(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    running = await one.begin("hello", "m1")
    before = await dump(store)
    for actor in (one, two):
        joined = await actor.send("hello", "m1")
        assert isinstance(joined, Joined)
        assert joined.turn.id == running.lease.turn_id
    assert await dump(store) == before


async def test_a_repeat_of_a_waiting_message_joins_its_turn(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    await one.begin()
    waiting = await one.wait("hello", "m1")
    before = await dump(store)
    joined = await two.send("hello", "m1", on_busy="reject", max_waiting=0)
    assert isinstance(joined, Joined)
    assert (joined.turn.id, joined.turn.state) == (waiting.turn_id, TurnState.SUBMITTED)
    assert await dump(store) == before


async def test_a_repeat_of_a_failed_message_is_a_new_turn_and_supersedes_the_old(
    store: SqlSessionStore, one: Actor
) -> None:
    begun = await one.begin("hello", "m1")
    failed = await one.fail(replace(begun, lease=await store.append(begun.lease, [said("half")])))
    await one.turn("between")
    again = await one.begin("hello", "m1")
    assert again.lease.turn_id != failed.id
    assert again.lease.attempt == 1
    old = await store.turn("a", "u", failed.id)
    assert old
    assert (old.superseded, old.state) == (True, TurnState.FAILED)
    await one.answer(again, "at last")
    assert await history(store) == [
        (1, "hello", Reason.SUPERSEDED),
        (2, "half", Reason.SUPERSEDED),
        (3, "between", None),
        (4, "re: between", None),
        (5, "hello", None),
        (6, "at last", None),
    ]
    repeated = await one.send("hello", "m1")
    assert isinstance(repeated, Repeated)
    assert repeated.turn.reply == "at last"


async def test_a_message_may_fail_and_be_repeated_many_times(store: SqlSessionStore, one: Actor) -> None:
    for _ in range(4):
        await one.fail(await one.begin("hello", "m1"))
    turn = await one.turn("hello", "m1")
    assert turn.state is TurnState.COMPLETED
    marks = [mark for _, _, mark in await history(store)]
    assert marks == [Reason.SUPERSEDED] * 4 + [None, None]


async def test_a_repeat_of_a_failed_message_waits_where_the_session_is_busy(
    store: SqlSessionStore, one: Actor
) -> None:
    failed = await one.fail(await one.begin("hello", "m1"))
    running = await one.begin("between")
    again = await one.wait("hello", "m1")
    assert again.turn_id != failed.id
    joined = await one.send("hello", "m1")
    assert isinstance(joined, Joined)
    assert joined.turn.id == again.turn_id
    await one.answer(running)
    begun = await one.must_take()
    assert texts(begun.own) == ["hello"]
    assert [each.unanswered for each in begun.tail.messages] == [Reason.SUPERSEDED, None, None]


async def test_a_repeat_never_runs_a_tool_twice_that_may_have_had_its_effect(
    store: SqlSessionStore, one: Actor
) -> None:
    failed = await one.fail(await one.begin("pay", "m1"), Reason.TOOL_UNKNOWN)
    before = await dump(store)
    again = await one.send("pay", "m1")
    assert isinstance(again, Repeated)
    assert (again.turn.id, again.turn.reason) == (failed.id, Reason.TOOL_UNKNOWN)
    assert await dump(store) == before


@pytest.mark.parametrize("waits", [True, False])
async def test_a_repeat_of_what_its_user_canceled_stays_canceled(
    store: SqlSessionStore, one: Actor, waits: bool
) -> None:
    running = await one.begin("first", "m0")
    if waits:
        waiting = await one.wait("hello", "m1")
        canceled = await store.cancel(KEY, waiting.turn_id)
        assert canceled
        assert (canceled.state, canceled.reason) == (TurnState.CANCELED, Reason.CANCELED)
        message_id, text, turn_id = "m1", "hello", waiting.turn_id
    else:
        await store.end(running.lease, [], Outcome(TurnState.CANCELED, Reason.CANCELED))
        message_id, text, turn_id = "m0", "first", running.lease.turn_id
    before = await dump(store)
    again = await one.send(text, message_id)
    assert isinstance(again, Repeated)
    assert (again.turn.id, again.turn.state, texts(again.turn.messages)) == (
        turn_id,
        TurnState.CANCELED,
        [text],
    )
    assert await dump(store) == before


async def test_a_repeat_of_what_waited_too_long_is_a_new_turn(store: SqlSessionStore, one: Actor) -> None:
    running = await one.begin("first")
    waiting = await one.wait("hello", "m1")
    await store.withdraw(KEY, waiting.turn_id, "m1", Reason.MAX_WAIT)
    await one.answer(running)
    begun = await one.begin("hello", "m1")
    assert begun.lease.turn_id != waiting.turn_id
    old = await store.turn("a", "u", waiting.turn_id)
    assert old
    assert old.superseded
    session = await store.session(KEY)
    assert session
    assert session.waiting == 0


async def test_a_repeat_of_a_rejected_message_is_a_new_turn(store: SqlSessionStore, one: Actor) -> None:
    rejected = await store.end((await one.begin("hello", "m1")).lease, [], Outcome(TurnState.REJECTED))
    assert (await one.begin("hello", "m1")).lease.turn_id != rejected.id


@pytest.mark.parametrize("state", ["waiting", "running", "completed", "failed", "paused"])
async def test_one_id_for_two_messages_is_a_conflict(store: SqlSessionStore, one: Actor, state: str) -> None:
    if state == "waiting":
        await one.begin()
        await one.wait("hello", "m1")
    else:
        begun = await one.begin("hello", "m1")
        outcome = {"completed": COMPLETED, "failed": FAILED, "paused": PAUSED}.get(state)
        if outcome:
            await store.end(begun.lease, [], outcome)
    before = await dump(store)
    for parts in ((Text("hello!"),), (Text("hello"), Text("")), (Data("hello"),)):
        with pytest.raises(ConflictError) as conflict:
            await one.send(message_id="m1", parts=parts)
        assert conflict.value.message_id == "m1"
    assert await dump(store) == before


async def test_message_metadata_is_no_part_of_what_is_compared(store: SqlSessionStore, one: Actor) -> None:
    message = UserMessage((Text("hi"),), {"sent": 1}, ("urn:x", "urn:y"))
    first = replace(one.arrival(message_id="m1"), message=message)
    again = replace(one.arrival(message_id="m1"), message=UserMessage((Text("hi"),), {"sent": 2}))
    await store.accept(first, WINDOW)
    assert isinstance(await store.accept(again, WINDOW), Joined)
    (stored,) = await store.messages(KEY)
    assert isinstance(stored.message, UserMessage)
    assert (stored.message.metadata, stored.message.extensions) == ({"sent": 1}, ("urn:x", "urn:y"))


async def test_big_files_are_compared_by_their_content(store: SqlSessionStore, one: Actor) -> None:
    big = File("image/png", "x.png", b"\x01" * 100_000)
    await one.begin(message_id="m1", parts=(big,))
    assert isinstance(await one.send(message_id="m1", parts=(big,)), Joined)
    with pytest.raises(ConflictError):
        await one.send(message_id="m1", parts=(replace(big, data=b"\x01" * 99_999 + b"\x02"),))


async def test_a_message_id_is_its_sessions_own(store: SqlSessionStore, one: Actor) -> None:
    for key in (KEY, replace(KEY, session_id="t"), replace(KEY, user_id="v"), replace(KEY, agent_id="b")):
        begun = await one.begin(f"for {key}", "m1", key=key)
        assert begun.new_session


async def test_repeats_that_arrive_together_are_one_turn(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    accepted = await asyncio.gather(*((one, two)[n % 2].send("hello", "m1") for n in range(10)))
    begun = [each for each in accepted if isinstance(each, Begun)]
    joined = [each for each in accepted if isinstance(each, Joined)]
    assert (len(begun), len(joined)) == (1, 9)
    assert {each.turn.id for each in joined} == {begun[0].lease.turn_id}
    assert len(await store.messages(KEY)) == 1


# --- commits without an answer


async def test_accepting_again_after_a_lost_commit_goes_on_with_the_turn(
    store: SqlSessionStore, one: Actor
) -> None:
    await one.turn("before")
    arrival = one.arrival("hello", "m1")
    first = await store.accept(arrival, WINDOW)
    before = await dump(store)
    again = await store.accept(arrival, WINDOW)
    assert isinstance(first, Begun)
    assert isinstance(again, Begun)
    assert again.lease == first.lease
    assert texts(again.tail.messages) == texts(first.tail.messages) == ["before", "re: before"]
    assert (again.new_session, again.earlier_messages) == (False, 2)
    assert texts(again.own) == ["hello"]
    assert await dump(store) == before
    assert (await one.answer(again)).state is TurnState.COMPLETED


async def test_accepting_again_finds_its_place_in_the_queue(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    running = await one.begin()
    arrival = one.arrival("hello", "m1")
    first = await store.accept(arrival, WINDOW)
    await two.wait("later")
    before = await dump(store)
    assert await store.accept(arrival, WINDOW) == first
    assert await dump(store) == before
    # What was taken from the queue is run by whoever took it.
    await one.answer(running)
    begun = await one.must_take()
    assert isinstance(await store.accept(arrival, WINDOW), Joined)
    await one.answer(begun, "done")
    repeated = await store.accept(arrival, WINDOW)
    assert isinstance(repeated, Repeated)
    assert repeated.turn.reply == "done"


async def test_accepting_again_leaves_alone_a_turn_that_went_on(store: SqlSessionStore, one: Actor) -> None:
    arrival = one.arrival("hello", "m1")
    begun = await store.accept(arrival, WINDOW)
    assert isinstance(begun, Begun)
    await store.append(begun.lease, [said("half")])
    assert isinstance(await store.accept(arrival, WINDOW), Joined)


async def test_resuming_again_after_a_lost_commit_goes_on_with_the_turn(
    store: SqlSessionStore, one: Actor
) -> None:
    paused = await one.pause(await one.begin("order"))
    await one.turn("between")
    arrival = one.arrival("the red one", "m2", resumes=paused.id)
    first = await store.accept(arrival, WINDOW)
    before = await dump(store)
    again = await store.accept(arrival, WINDOW)
    assert isinstance(first, Begun)
    assert isinstance(again, Begun)
    assert again.lease == first.lease
    assert again.lease.resumed
    assert texts(again.own) == texts(first.own) == ["order", "which?", "the red one"]
    assert texts(again.tail.messages) == texts(first.tail.messages) == ["between", "re: between"]
    assert await dump(store) == before
    await one.answer(again)


async def test_resuming_again_finds_its_place_in_the_queue(store: SqlSessionStore, one: Actor) -> None:
    paused = await one.pause(await one.begin("order"))
    await one.begin("between")
    arrival = one.arrival("the red one", "m2", resumes=paused.id)
    first = await store.accept(arrival, WINDOW)
    assert isinstance(first, Queued)
    assert await store.accept(arrival, WINDOW) == first


async def test_an_append_whose_commit_got_no_answer_is_done_once(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin()
    new = [call("look"), NewMessage(ToolMessage(ToolResult("1", "look", "seen")))]
    lease = await store.append(begun.lease, new)
    before = await dump(store)
    assert await store.append(begun.lease, new) == lease
    assert await dump(store) == before
    with pytest.raises(LeaseLostError):
        await store.append(begun.lease, [said("something"), said("else")])
    with pytest.raises(LeaseLostError):
        await store.append(begun.lease, new[:1])
    assert await dump(store) == before
    assert (await store.end(lease, [], COMPLETED)).state is TurnState.COMPLETED


@pytest.mark.parametrize("outcome", [COMPLETED, FAILED, PAUSED], ids=lambda outcome: outcome.state)
@pytest.mark.parametrize("new", [[], [said("ok")]], ids=["nothing new", "an answer"])
async def test_an_end_whose_commit_got_no_answer_is_done_once(
    store: SqlSessionStore, one: Actor, outcome: Outcome, new: list[NewMessage]
) -> None:
    begun = await one.begin()
    first = await store.end(begun.lease, new, outcome)
    before = await dump(store)
    again = await store.end(begun.lease, new, outcome)
    assert (again.id, again.state, again.reason, again.reply) == (
        first.id,
        first.state,
        first.reason,
        first.reply,
    )
    assert await dump(store) == before
    # Also after the session went on.
    await one.turn("next")
    assert (await store.end(begun.lease, new, outcome)).state is outcome.state


# --- the guard

Write = Callable[[SqlSessionStore, Begun], Awaitable[object]]


async def _append(store: SqlSessionStore, begun: Begun) -> object:
    return await store.append(begun.lease, [said("zombie")])


async def _end(store: SqlSessionStore, begun: Begun) -> object:
    return await store.end(begun.lease, [said("zombie")], COMPLETED)


async def _end_without_a_word(store: SqlSessionStore, begun: Begun) -> object:
    return await store.end(begun.lease, [], FAILED)


writes = pytest.mark.parametrize("write", [_append, _end, _end_without_a_word])


async def _refused(store: SqlSessionStore, begun: Begun, write: Write) -> None:
    before = await dump(store)
    with pytest.raises(LeaseLostError) as lost:
        await write(store, begun)
    assert lost.value.turn_id == begun.lease.turn_id
    assert await dump(store) == before


@writes
@pytest.mark.parametrize(
    "forged",
    [
        {"epoch": 0},
        {"epoch": 2},
        {"owner": "00000000-0000-0000-0000-000000000000"},
        {"turn_id": "00000000-0000-0000-0000-000000000000"},
        {"seq": 0},
        {"seq": 2},
        {"key": replace(KEY, session_id="t")},
        {"key": replace(KEY, user_id="v")},
        {"key": replace(KEY, agent_id="b")},
    ],
    ids=repr,
)
async def test_a_write_needs_every_part_of_the_lease(
    store: SqlSessionStore, one: Actor, write: Write, forged: dict[str, object]
) -> None:
    begun = await one.begin()
    with pytest.raises(LeaseLostError):
        await write(store, replace(begun, lease=lease_of(begun, **forged)))
    turn = await store.turn("a", "u", begun.lease.turn_id)
    assert turn
    assert turn.state is TurnState.WORKING
    assert len(turn.messages) == 1
    await one.answer(begun)


@writes
async def test_a_zombie_cannot_write_once_its_turn_was_ended_by_others(
    store: SqlSessionStore, one: Actor, two: Actor, write: Write
) -> None:
    begun = await one.begin()
    await one.die()
    assert await two.end_orphan()
    await _refused(store, begun, write)
    await two.begin("next")
    await _refused(store, begun, write)


@writes
async def test_a_zombie_cannot_write_once_its_session_is_gone(
    store: SqlSessionStore, one: Actor, write: Write
) -> None:
    begun = await one.begin()
    assert await store.delete(KEY)
    await _refused(store, begun, write)


@writes
@pytest.mark.parametrize("same_message", [True, False])
async def test_a_zombie_cannot_write_to_a_session_that_was_made_again(
    store: SqlSessionStore, one: Actor, write: Write, same_message: bool
) -> None:
    begun = await one.begin("hello", "m1")
    await store.delete(KEY)
    again = await one.begin("hello" if same_message else "bye", "m1" if same_message else "m2")
    assert (again.lease.epoch, again.lease.seq) == (begun.lease.epoch, begun.lease.seq), (
        "only the turn differs"
    )
    await _refused(store, begun, write)


@writes
async def test_a_zombie_cannot_write_to_a_turn_that_others_resumed(
    store: SqlSessionStore, one: Actor, two: Actor, write: Write
) -> None:
    begun = await one.begin()
    paused = await one.pause(begun)
    await two.begin("the red one", resumes=paused.id)
    await _refused(store, begun, write)


async def test_a_late_write_of_an_ended_turn_is_refused(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin()
    await one.answer(begun)
    await _refused(store, begun, _append)
    # An end is told what became of the turn, and changes nothing.
    before = await dump(store)
    turn = await store.end(begun.lease, [said("other")], FAILED)
    assert (turn.state, turn.reply) == (TurnState.COMPLETED, "ok")
    assert await dump(store) == before


# --- pauses


async def test_a_paused_turn_goes_on_with_the_message_that_names_it(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    paused = await one.pause(await one.begin("order", "m1"))
    assert (paused.state, paused.reply) == (TurnState.INPUT_REQUIRED, "which?")
    between = await two.begin("between")
    assert [(text_of(m.message), m.unanswered) for m in between.tail.messages] == [
        ("order", Reason.WAITING_FOR_INPUT),
        ("which?", Reason.WAITING_FOR_INPUT),
    ]
    await two.answer(between)
    resumed = await two.begin("the red one", "m2", resumes=paused.id)
    assert (resumed.lease.turn_id, resumed.lease.resumed) == (paused.id, True)
    assert texts(resumed.own) == ["order", "which?", "the red one"]
    assert texts(resumed.tail.messages) == ["between", "ok"]
    working = await store.turn("a", "u", paused.id)
    assert working
    assert (working.state, working.ended_at) == (TurnState.WORKING, None)
    ended = await two.answer(resumed, "red it is")
    assert (ended.reply, texts(ended.messages)) == (
        "red it is",
        ["order", "which?", "the red one", "red it is"],
    )
    assert await history(store) == [
        (1, "order", None),
        (2, "which?", None),
        (3, "between", None),
        (4, "ok", None),
        (5, "the red one", None),
        (6, "red it is", None),
    ]


async def test_usage_counts_all_runs_of_a_turn(store: SqlSessionStore, one: Actor) -> None:
    paused = await store.end((await one.begin()).lease, [said("?")], replace(PAUSED, usage=Usage(1, 2)))
    resumed = await one.begin("yes", resumes=paused.id)
    ended = await store.end(resumed.lease, [said("ok")], replace(COMPLETED, usage=Usage(10, 20)))
    assert ended.usage == Usage(11, 22)


@pytest.mark.parametrize("at_once", [1, 2], ids=["one message", "two messages"])
async def test_usage_of_what_was_stored_counts_however_the_turn_ends(
    store: SqlSessionStore, one: Actor, two: Actor, at_once: int
) -> None:
    begun = await one.begin()
    new = [replace(call("look", idempotent=True), usage=Usage(1, 2)) for _ in range(at_once)]
    await store.append(begun.lease, new)
    lease = await store.append(begun.lease, new)
    assert await _usage(store, lease.turn_id) == Usage(at_once, 2 * at_once), "an append is counted once"
    await one.die()
    again = await two.must_take()
    lease = await store.append(again.lease, [said("more")])
    lease = await store.append(lease, [replace(said("more"), usage=Usage(10, 20))])
    ended = await store.end(lease, [said("ok")], replace(COMPLETED, usage=Usage(100, 200)))
    assert ended.usage == await _usage(store, ended.id) == Usage(110 + at_once, 220 + 2 * at_once)


async def test_usage_of_what_was_stored_counts_where_others_end_the_turn(
    store: SqlSessionStore, one: Actor
) -> None:
    begun = await one.begin()
    lease = await store.append(begun.lease, [replace(call("look"), usage=Usage(1, 2**80))])
    canceled = await store.cancel(KEY, lease.turn_id)
    assert canceled
    assert canceled.usage == Usage(1, 2**53), "an absurd number is the column's largest"


async def _usage(store: SqlSessionStore, turn_id: str) -> Usage:
    turn = await store.turn("a", "u", turn_id)
    assert turn
    return turn.usage


async def test_each_message_of_a_paused_turn_is_repeated_as_its_run_ended(
    store: SqlSessionStore, one: Actor
) -> None:
    paused = await one.pause(await one.begin("order", "m1"), "which?")
    first = await one.send("order", "m1")
    assert isinstance(first, Repeated)
    assert (first.turn.state, first.turn.reply) == (TurnState.INPUT_REQUIRED, "which?")
    await one.pause(await one.begin("red", "m2", resumes=paused.id), "how many?")
    running = await one.begin("three", "m3", resumes=paused.id)
    assert isinstance(await one.send("three", "m3", resumes=paused.id), Joined)
    await one.answer(running, "done")
    for text, message_id, resumes, state, reply in (
        ("order", "m1", None, TurnState.INPUT_REQUIRED, "which?"),
        ("red", "m2", paused.id, TurnState.INPUT_REQUIRED, "how many?"),
        ("three", "m3", paused.id, TurnState.COMPLETED, "done"),
    ):
        repeated = await one.send(text, message_id, resumes=resumes)
        assert isinstance(repeated, Repeated)
        assert (repeated.turn.id, repeated.turn.state, repeated.turn.reply) == (paused.id, state, reply)


async def test_a_repeat_to_a_paused_turn_does_not_show_what_waits_for_it(
    store: SqlSessionStore, one: Actor
) -> None:
    paused = await one.pause(await one.begin("order", "m1"))
    await one.begin("between")
    await one.wait("red", "m2", resumes=paused.id)
    repeated = await one.send("order", "m1")
    assert isinstance(repeated, Repeated)
    assert repeated.turn.reply == "which?"


async def test_a_continuation_of_a_busy_session_waits_with_a_ticket_of_its_own(
    store: SqlSessionStore, one: Actor
) -> None:
    paused = await one.pause(await one.begin("order"))
    running = await one.begin("between")
    waiting = await one.wait("red", "m2", resumes=paused.id)
    assert (waiting.turn_id, waiting.ahead) == (paused.id, 1)
    turn = await store.turn("a", "u", paused.id)
    assert turn
    assert turn.state is TurnState.INPUT_REQUIRED, "it stays paused while the message waits"
    assert [(text_of(m.message), m.seq) for m in turn.messages] == [
        ("order", 1),
        ("which?", 2),
        ("red", None),
    ]
    joined = await one.send("red", "m2", resumes=paused.id)
    assert isinstance(joined, Joined)
    await one.answer(running)
    begun = await one.must_take()
    assert (begun.lease.turn_id, begun.lease.resumed) == (paused.id, True)
    assert texts(begun.own) == ["order", "which?", "red"]
    assert texts(begun.tail.messages) == ["between", "ok"]


async def test_the_second_of_two_continuations_is_refused_when_its_ticket_comes(
    store: SqlSessionStore, one: Actor
) -> None:
    paused = await one.pause(await one.begin("order"))
    running = await one.begin("between")
    await one.wait("red", "m2", resumes=paused.id)
    late = one.arrival("blue", "m3", resumes=paused.id)
    assert isinstance(await store.accept(late, WINDOW), Queued)
    last = await one.wait("last", "m4")
    await one.answer(running)
    await one.answer(await one.must_take(), "red it is")
    begun = await one.must_take()
    assert begun.lease.turn_id == last.turn_id, "the refused one is passed over"
    session = await store.session(KEY)
    assert session
    assert session.waiting == 0
    assert "blue" not in texts(begun.tail.messages)
    with pytest.raises(NotPausedError):
        await store.accept(late, WINDOW)
    with pytest.raises(NotPausedError):
        await one.send("blue", "m3", resumes=paused.id)
    done = await store.turn("a", "u", paused.id)
    assert done
    assert texts(done.messages) == ["order", "which?", "red", "red it is"]


async def test_a_withdrawn_continuation_leaves_its_turn_paused(store: SqlSessionStore, one: Actor) -> None:
    paused = await one.pause(await one.begin("order"))
    running = await one.begin("between")
    await one.wait("red", "m2", resumes=paused.id)
    turn = await store.withdraw(KEY, paused.id, "m2", Reason.MAX_WAIT)
    assert turn
    assert (turn.state, texts(turn.messages)) == (TurnState.INPUT_REQUIRED, ["order", "which?"])
    await one.answer(running)
    assert await one.take() is None
    again = await one.begin("red", "m2", resumes=paused.id)
    assert texts(again.own) == ["order", "which?", "red"]


@pytest.mark.parametrize("outcome", [COMPLETED, FAILED], ids=lambda outcome: outcome.state)
async def test_a_message_for_a_turn_that_is_not_paused_is_refused(
    store: SqlSessionStore, one: Actor, outcome: Outcome
) -> None:
    begun = await one.begin()
    for _ in range(2):
        before = await dump(store)
        with pytest.raises(NotPausedError) as refused:
            await one.send("more", "m2", resumes=begun.lease.turn_id)
        assert refused.value.turn_id == begun.lease.turn_id
        assert await dump(store) == before
        await store.end(begun.lease, [], outcome)


async def test_a_message_for_a_turn_that_this_session_does_not_have_is_refused(
    store: SqlSessionStore, one: Actor
) -> None:
    paused = await one.pause(await one.begin())
    for key in (replace(KEY, session_id="t"), replace(KEY, user_id="v"), replace(KEY, agent_id="b")):
        with pytest.raises(NotFoundError):
            await one.send("more", resumes=paused.id, key=key)
    with pytest.raises(NotFoundError):
        await one.send("more", resumes="no-such-task")


async def test_a_continuation_that_failed_may_be_repeated(store: SqlSessionStore, one: Actor) -> None:
    paused = await one.pause(await one.begin("order", "m1"))
    await one.fail(await one.begin("red", "m2", resumes=paused.id))
    assert [mark for _, _, mark in await history(store)] == [Reason.INTERNAL] * 3
    await one.turn("between")
    again = await one.begin("red", "m2", resumes=paused.id)
    assert again.lease.turn_id != paused.id
    assert (again.lease.resumed, again.lease.attempt) == (True, 2)
    assert texts(again.own) == ["order", "which?", "red"], "as it was sent the first time"
    assert texts(again.tail.messages) == ["red", "between", "re: between"]
    old = await store.turn("a", "u", paused.id)
    assert old
    assert (old.superseded, texts(old.messages)) == (True, ["order", "which?", "red"])
    assert await history(store) == [
        (1, "order", Reason.WAITING_FOR_INPUT),
        (2, "which?", Reason.WAITING_FOR_INPUT),
        (3, "red", Reason.SUPERSEDED),
        (4, "between", None),
        (5, "re: between", None),
        (6, "red", None),
    ]
    ended = await one.answer(again, "red it is")
    assert texts(ended.messages) == ["order", "which?", "red", "red it is"]
    first = await one.send("order", "m1")
    assert isinstance(first, Repeated)
    assert (first.turn.id, first.turn.state, first.turn.reply) == (
        paused.id,
        TurnState.INPUT_REQUIRED,
        "which?",
    )
    assert [mark for _, _, mark in await history(store)] == [None, None, Reason.SUPERSEDED, *[None] * 4]


async def test_a_continuation_may_fail_and_be_repeated_many_times_over_several_pauses(
    store: SqlSessionStore, one: Actor
) -> None:
    task = (await one.pause(await one.begin("order"))).id
    await one.pause(await one.begin("red", resumes=task), "how many?")
    for _ in range(2):
        await one.fail(await one.begin("three", "m3", resumes=task))
        assert [mark for _, text, mark in await history(store) if text != "three"] == [Reason.INTERNAL] * 4
    begun = await one.begin("three", "m3", resumes=task)
    again = await one.pause(begun, "why?")
    assert again.id != task
    last = await one.begin("as I say so", "m4", resumes=again.id)
    assert texts(last.own) == ["order", "which?", "red", "how many?", "three", "why?", "as I say so"]
    assert {each.unanswered for each in last.tail.messages} == {Reason.SUPERSEDED}
    await one.answer(last)
    assert [text for _, text, mark in await history(store) if mark is None] == [*texts(last.own), "ok"]
    repeated = await one.send("three", "m3", resumes=task)
    assert isinstance(repeated, Repeated)
    assert (repeated.turn.id, repeated.turn.reply) == (again.id, "why?")


async def test_a_continuation_that_failed_may_be_repeated_where_the_session_is_busy(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    paused = await one.pause(await one.begin("order"))
    await one.fail(await one.begin("red", "m2", resumes=paused.id))
    running = await one.begin("between")
    late = await one.wait("red", "m2", resumes=paused.id)
    turn = await store.turn("a", "u", late.turn_id)
    assert turn
    assert (turn.state, texts(turn.messages)) == (TurnState.SUBMITTED, ["order", "which?", "red"])
    assert [mark for _, _, mark in await history(store)][:2] == [Reason.WAITING_FOR_INPUT] * 2
    await store.withdraw(KEY, late.turn_id, "m2", Reason.MAX_WAIT)
    assert [mark for _, _, mark in await history(store)][:2] == [Reason.MAX_WAIT] * 2
    waiting = await one.wait("red", "m2", resumes=paused.id)
    await one.answer(running)
    await one.die()
    begun = await two.must_take()
    assert (begun.lease.turn_id, begun.lease.resumed, begun.lease.attempt) == (waiting.turn_id, True, 2)
    assert texts(begun.own) == ["order", "which?", "red"]
    assert texts(begun.tail.messages) == ["red", "between", "ok"]


async def test_a_repeated_continuation_whose_replica_died_is_run_on_or_ended_whole(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    paused = await one.pause(await one.begin("order"))
    await one.fail(await one.begin("red", "m2", resumes=paused.id))
    again = await one.begin("red", "m2")
    await one.die()
    taken = await two.must_take()
    assert (taken.lease.turn_id, taken.lease.attempt, texts(taken.own)) == (
        again.lease.turn_id,
        3,
        ["order", "which?", "red"],
    )
    await two.die()
    assert await one.end_orphan() == again.lease.turn_id
    assert [mark for _, _, mark in await history(store)] == [
        Reason.CRASHED,
        Reason.CRASHED,
        Reason.SUPERSEDED,
        Reason.CRASHED,
    ]


async def test_the_pauses_of_a_turn_are_as_many_as_it_takes(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("0")
    for n in range(1, 5):
        paused = await one.pause(begun, f"{n}?")
        await one.turn(f"aside {n}")
        begun = await one.begin(str(n), resumes=paused.id)
    assert texts(begun.own) == ["0", "1?", "1", "2?", "2", "3?", "3", "4?", "4"]
    assert texts(begun.tail.messages) == [
        text for n in range(1, 5) for text in (f"aside {n}", f"re: aside {n}")
    ]
    ended = await one.answer(begun)
    assert [m.seq for m in ended.messages] == [1, 2, 5, 6, 9, 10, 13, 14, 17, 18]


async def test_a_turn_that_pauses_for_sign_in_resumes_alike(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("order")
    paused = await store.end(begun.lease, [said("who?")], Outcome(TurnState.AUTH_REQUIRED))
    assert [mark for _, _, mark in await history(store)] == [Reason.WAITING_FOR_INPUT] * 2
    assert (await one.begin("me", resumes=paused.id)).lease.turn_id == paused.id


# --- canceling


async def test_a_waiting_turn_can_be_canceled(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    running = await one.begin("first")
    waiting = await one.wait("second")
    turn = await store.cancel(KEY, waiting.turn_id)
    assert turn
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.CANCELED, Reason.CANCELED, False)
    assert await store.cancel(KEY, waiting.turn_id) is None, "only once"
    session = await store.session(KEY)
    assert session
    assert session.waiting == 0
    await one.answer(running)
    assert (await two.begin("third")).earlier_messages == 2


async def test_a_paused_turn_can_be_canceled(store: SqlSessionStore, one: Actor) -> None:
    paused = await one.pause(await one.begin("order"))
    turn = await store.cancel(KEY, paused.id)
    assert turn
    assert (turn.state, turn.reason) == (TurnState.CANCELED, Reason.CANCELED)
    assert [mark for _, _, mark in await history(store)] == [Reason.CANCELED] * 2
    with pytest.raises(NotPausedError):
        await one.send("red", resumes=paused.id)


async def test_what_has_ended_is_not_canceled(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin()
    await one.answer(begun)
    before = await dump(store)
    assert await store.cancel(KEY, begun.lease.turn_id) is None
    assert await store.cancel(KEY, "no-such-task") is None
    assert await store.cancel(replace(KEY, session_id="t"), begun.lease.turn_id) is None
    assert await dump(store) == before


async def test_canceling_what_runs_takes_it_from_its_replica(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    begun = await one.begin()
    canceled = await store.cancel(KEY, begun.lease.turn_id)
    assert canceled
    assert (canceled.state, canceled.reason) == (TurnState.CANCELED, Reason.CANCELED)
    with pytest.raises(LeaseLostError):
        await one.answer(begun)
    with pytest.raises(LeaseLostError):
        await store.append(begun.lease, [said("late")])
    await two.turn("next")
    assert [mark for _, _, mark in await history(store)] == [Reason.CANCELED, None, None]


async def test_a_turn_is_not_canceled_through_another_session(store: SqlSessionStore, one: Actor) -> None:
    other = replace(KEY, session_id="t")
    await one.turn(key=other)
    paused = await one.pause(await one.begin())
    assert await store.cancel(other, paused.id) is None


# --- cost


@pytest.mark.parametrize(
    ("short", "limit"), [(10, TailLimit(10)), (100, TailLimit(500, tokens=100))], ids=["window", "budget"]
)
async def test_resuming_costs_the_same_after_ten_messages_and_ten_thousand(
    store: SqlSessionStore, one: Actor, short: int, limit: TailLimit
) -> None:
    counting = CountingDriver(store._driver)
    counted = SqlSessionStore(counting)
    costs = []
    for length in (short, 10_000):
        key = replace(KEY, session_id=str(length))
        lease = (await one.begin(key=key)).lease
        lease = await store.append(lease, [said("x", tokens=3) for _ in range(length - 1)])
        await store.end(lease, [], COMPLETED)
        counting.statements = counting.rows = 0
        begun = await counted.accept(one.arrival(key=key), limit)
        assert isinstance(begun, Begun)
        assert begun.earlier_messages == length
        turn = await counted.end(begun.lease, [said("ok")], COMPLETED)
        await counted.turn("a", "u", turn.id)
        costs.append((counting.statements, counting.rows))
    assert costs[0] == costs[1]


async def test_a_plain_turn_takes_two_transactions_of_few_statements(
    store: SqlSessionStore, one: Actor
) -> None:
    await one.turn()
    counting = CountingDriver(store._driver)
    await Actor(SqlSessionStore(counting), one.id).turn()
    assert counting.statements <= 10


# --- contents


async def test_a_message_of_a_megabyte_is_kept_whole(store: SqlSessionStore, one: Actor) -> None:
    text = "\U0001f9ed é\n" * 150_000
    await one.turn(text)
    begun = await one.begin("next")
    assert texts(begun.tail.messages) == [text, f"re: {text}"]


async def test_a_big_file_is_stored_once_in_its_session(store: SqlSessionStore, one: Actor) -> None:
    data = bytes(range(256)) * 400
    small, big = File("a/b", "small", b"\0\xff"), File("a/b", "big", data, metadata={"x": 1})
    begun = await one.begin(parts=(Text("see"), small, big, big))
    assert [text_of(m.message) for m in begun.own] == ["see"]
    ended = await store.end(begun.lease, [NewMessage(ModelMessage((big,)))], COMPLETED)
    assert len((await dump(store))["files"]) == 1
    await one.turn("other", key=replace(KEY, session_id="t"))
    await one.turn("big", key=replace(KEY, user_id="v"))
    turn = await store.turn("a", "u", ended.id)
    assert turn
    assert turn.messages[0].message == UserMessage((Text("see"), small, big, big))
    assert turn.messages[1].message == ModelMessage((big,))
    begun = await one.begin("again")
    assert begun.tail.messages[0].message == UserMessage((Text("see"), small, big, big))
    digest = hashlib.sha256(data).hexdigest()
    listed = (await store.messages(KEY))[0].message.parts[2]
    assert listed == File("a/b", "big", metadata={"x": 1}, sha256=digest, size=len(data)), (
        "no bytes in a listing"
    )
    await store.delete(KEY)
    assert (await dump(store))["files"] == []


async def test_half_a_surrogate_pair_does_not_brick_a_session(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("hi")
    odd = "NUL \0 and \ud83d, half a pair"
    await store.end(begun.lease, [said(odd)], COMPLETED)
    assert texts((await one.begin("next")).tail.messages) == ["hi", odd]


_SAME = "e\u0301"
_IDS = [
    "Alice",
    "alice",
    "Alice ",
    " Alice",
    "Alice\t",
    "ALICE",
    "\u00e9",
    _SAME,
    "\u1e9e",
    "\u00df",
    "ss",
    "\u0131",
    "i",
    "%",
    "_",
    "'",
    '"',
    "\\",
    "a\nb",
    "; DROP TABLE sessions; --",
    "\u200d",
    "\U0001f469\u200d\U0001f680",
    "０",
    "0",
]


async def test_ids_are_compared_as_bytes(store: SqlSessionStore, one: Actor) -> None:
    keys = [SessionKey("a", user, "s") for user in _IDS] + [SessionKey("a", "u", session) for session in _IDS]
    for n, key in enumerate(keys):
        turn: Turn = await one.turn(f"{n}", key=key)
        assert turn.messages[0].seq == 2, key
    for n, key in enumerate(keys):
        assert [text for _, text, _ in await history(store, key)] == [f"{n}", f"re: {n}"]
    for n, message_id in enumerate(_IDS):
        key = replace(KEY, session_id="messages")
        assert (await one.turn(f"{n}", message_id, key=key)).reply == f"re: {n}"
    assert len(await history(store, replace(KEY, session_id="messages"))) == 2 * len(_IDS)
    for key in keys:
        assert await store.delete(key)
    assert len(await history(store, replace(KEY, session_id="messages"))) == 2 * len(_IDS)


async def test_ids_of_full_length_in_the_longest_characters_work_everywhere(
    store: SqlSessionStore, one: Actor, two: Actor
) -> None:
    star = "\U0001f31f"
    key = SessionKey("A" * 64, star * 255, star * 191)
    near = SessionKey("A" * 64, star * 254 + "\U0001f320", star * 191)
    first, second = star * 191, star * 190 + "\U0001f320"
    begun = await one.begin("one", first, key=key, parts=(File(data=b"x" * 70_000),))
    await one.wait("two", second, key=key)
    assert (await one.begin("one", first, key=near)).new_session
    assert isinstance(await two.send("two", second, key=key), Joined)
    await one.answer(begun)
    taken = await one.must_take(key)
    paused = await one.pause(taken)
    await one.answer(await one.begin("three", "m3", key=key, resumes=paused.id))
    assert len(await store.messages(key)) == 6
    page = await store.sessions(agent_id="A" * 64, user_id=None, limit=1)
    assert page.next_cursor
    rest = await store.sessions(agent_id="A" * 64, user_id=None, limit=1, cursor=page.next_cursor)
    assert {page.sessions[0].key, rest.sessions[0].key} == {key, near}
    assert await store.delete(key)
    assert await store.session(near)
