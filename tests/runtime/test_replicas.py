"""Several replicas on one store: taking turns, crashing, being taken for dead."""

import asyncio
import logging
from typing import Any

import pytest

from hector.domain.errors import (
    InputRequiredError,
    OutcomeUnknownError,
    StoreUnavailableError,
    WaitedTooLongError,
)
from hector.domain.ids import new_turn_id
from hector.domain.memory import TailLimit
from hector.domain.messages import Text, UserMessage
from hector.domain.turns import Accepted, Arrival, Reason, Recovery, TurnSettings, TurnState
from hector.tools.function import FunctionTool
from tests.backends import BACKENDS, Backend
from tests.contract.actor import have_waited
from tests.runtime.conftest import KEY, StartNode

# A store in memory has one replica.
GIVE_UP = TurnSettings(recovery=Recovery("fail"))

pytestmark = pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)


async def test_turns_of_two_replicas_take_turns(start: StartNode) -> None:
    one, two = await start(), await start()
    gate = one.model.gate("g")
    first = await one.send("wait g\nsay 0")
    await gate.reached.wait()
    second = await two.send("say 1")
    third = await one.send("say 2")
    gate.opened.set()
    assert [(await handle.result()).reply for handle in (first, second, third)] == ["0", "1", "2"]
    assert [stored.seq for stored in await one.messages()] == [1, 2, 3, 4, 5, 6]
    assert two.sent() == ["wait g\nsay 0", "0", "say 1"]


async def test_a_repeat_at_another_replica_joins(start: StartNode) -> None:
    one, two = await start(), await start()
    gate = one.model.gate("g")
    first = await one.send("wait g\nsay 0", message_id="m1")
    await gate.reached.wait()
    again = await two.send("wait g\nsay 0", message_id="m1")
    gate.opened.set()
    assert (await again.result()).reply == (await first.result()).reply == "0"
    assert not two.model.requests


async def test_repeats_at_two_replicas_at_once_run_one_turn(start: StartNode) -> None:
    nodes = [await start(), await start()]
    turns = await asyncio.gather(
        *(nodes[number % 2].ask("say once", message_id="m1") for number in range(10))
    )
    assert {turn.id for turn in turns} == {turns[0].id}
    assert len(nodes[0].model.requests) + len(nodes[1].model.requests) == 1


async def test_a_start_after_a_crash_ends_what_was_running(start: StartNode) -> None:
    one = await start(settings=GIVE_UP)
    handle = await one.send("wait g\nsay 0", message_id="m1")
    await one.model.gate("g").reached.wait()
    one.crash()
    two = await start(settings=GIVE_UP)
    turn = await two.ended(handle.turn_id)
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.FAILED, Reason.CRASHED, True)
    assert (await two.ask("say next")).reply == "next"
    assert two.sent()[0].endswith("[not answered: crashed]")


async def test_a_crashed_message_can_be_sent_again(start: StartNode) -> None:
    one = await start(settings=GIVE_UP)
    handle = await one.send("wait g\nsay 0", message_id="m1")
    await one.model.gate("g").reached.wait()
    one.crash()
    two = await start(settings=GIVE_UP)
    await two.ended(handle.turn_id)
    two.model.gate("g").opened.set()
    assert (await two.ask("wait g\nsay 0", message_id="m1")).reply == "0"
    assert two.sent() == ["wait g\nsay 0"]


async def test_a_start_after_a_crash_runs_on_what_was_running(start: StartNode) -> None:
    one = await start()
    handle = await one.send("wait g\nsay 0", message_id="m1")
    await one.model.gate("g").reached.wait()
    one.crash()
    two = await start(opened=["g"])
    turn = await two.ended(handle.turn_id)
    assert (turn.state, turn.attempt, turn.reply) == (TurnState.COMPLETED, 2, "0")
    repeated = await two.ask("wait g\nsay 0", message_id="m1")
    assert (repeated.id, repeated.reply) == (turn.id, "0")
    assert two.sent() == ["wait g\nsay 0"]
    assert (await two.ask("say next")).reply == "next"


async def test_the_usage_of_stored_steps_counts_after_a_crash(start: StartNode) -> None:
    def look() -> str:
        """Sees."""
        return "seen"

    tools = {"look": FunctionTool(look, idempotent=True)}
    one = await start(tools=tools)
    handle = await one.send("say I look\ncall look\nwait g\nsay 0")
    await one.model.gate("g").reached.wait()
    one.crash()
    two = await start(tools=tools, opened=["g"])
    broken_off = await two.ended(handle.turn_id)
    whole = await two.ask("say I look\ncall look\nwait g\nsay 0", message_id="m2")
    assert (broken_off.attempt, whole.attempt) == (2, 1)
    assert broken_off.usage.output_tokens == whole.usage.output_tokens > 0


async def test_what_a_stop_breaks_off_is_run_on_by_another_replica(start: StartNode) -> None:
    one, two = await start(), await start()
    two.model.gate("g").opened.set()
    handle = await one.send("wait g\nsay 0", message_id="m1")
    await one.model.gate("g").reached.wait()
    joined = await two.send("wait g\nsay 0", message_id="m1")
    await one.runtime.close()
    with pytest.raises(StoreUnavailableError, match="repeat"):
        await handle.result()
    turn = await joined.result()
    assert (turn.id, turn.attempt, turn.reply) == (handle.turn_id, 2, "0")


async def test_a_stop_ends_what_must_not_be_run_again(start: StartNode) -> None:
    one = await start(settings=GIVE_UP)
    handle = await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    await one.runtime.close()
    turn = await handle.result()
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.FAILED, Reason.SHUTDOWN, True)


async def test_a_call_that_ends_hands_over_what_it_did_not_begin(start: StartNode) -> None:
    one = await start()
    handle = await one.send("wait g\nsay 0", message_id="m1")
    await one.model.gate("g").reached.wait()
    call = await start(hands_over=False)
    own = await call.send("say 1")
    one.crash()
    await call.model.gate("g").reached.wait()
    await call.runtime.close()
    with pytest.raises(StoreUnavailableError, match="will be answered"):
        await own.result()
    two = await start(opened=["g"])
    turn = await two.ended(handle.turn_id)
    assert (turn.state, turn.attempt, turn.reply) == (TurnState.COMPLETED, 3, "0")


async def test_a_call_that_ends_hands_over_nothing_of_its_own(start: StartNode) -> None:
    call = await start(hands_over=False)
    handle = await call.send("wait g\nsay 0")
    await call.model.gate("g").reached.wait()
    await call.runtime.close()
    turn = await handle.result()
    assert (turn.state, turn.reason) == (TurnState.FAILED, Reason.SHUTDOWN)


async def test_a_start_after_a_crash_answers_what_was_waiting(start: StartNode) -> None:
    one = await start()
    await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    waiting = [await one.send(f"say {number}", message_id=f"m{number}") for number in (1, 2)]
    one.crash()
    two = await start(opened=["g"])
    turns = [await two.ask(f"say {number}", message_id=f"m{number}") for number in (1, 2)]
    assert [turn.id for turn in turns] == [handle.turn_id for handle in waiting]
    assert [turn.reply for turn in turns] == ["1", "2"]


async def test_what_waits_too_long_is_canceled_though_its_replica_died_and_the_session_is_busy(
    start: StartNode,
) -> None:
    impatient = TurnSettings(max_wait=0.5)
    one, two, three = await start(), await start(), await start(settings=impatient)
    await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    waiting = await two.send("say late", message_id="m1")
    joined = await one.send("say late", message_id="m1")
    two.crash()
    turn = await three.ended(waiting.turn_id)
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.CANCELED, Reason.MAX_WAIT, True)
    assert (await joined.result()).reason == Reason.MAX_WAIT
    assert one.model.running == 1


async def test_an_answer_waits_too_long_though_its_replica_died_and_the_session_is_busy(
    start: StartNode,
) -> None:
    def ask() -> str:
        """Asks."""
        raise InputRequiredError("which?")

    tools = {"ask": FunctionTool(ask)}
    one, two = await start(tools=tools), await start(tools=tools)
    await start(tools=tools, settings=TurnSettings(max_wait=0.5))
    paused = await one.ask("call ask")
    await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    await two.send("say red", message_id="m1", task_id=paused.id)
    joined = await one.send("say red", message_id="m1", task_id=paused.id)
    two.crash()
    with pytest.raises(WaitedTooLongError):
        await joined.result()
    assert (await one.runtime.turn("a", "u", paused.id)).state is TurnState.INPUT_REQUIRED


async def test_who_stood_still_while_a_message_waited_too_long_tells_its_caller(start: StartNode) -> None:
    node = await start()
    await node.send("wait g\nsay 0")
    await node.model.gate("g").reached.wait()
    late = await node.send("say late", message_id="m1")
    await node.send("wait h\nsay 1")
    await have_waited(node.store, "m1", 400)
    node.model.gate("g").opened.set()
    turn = await late.result()
    assert (turn.state, turn.reason) == (TurnState.CANCELED, Reason.MAX_WAIT)
    await node.model.gate("h").reached.wait()


async def test_who_waits_behind_a_crashed_replica_goes_on(start: StartNode) -> None:
    one, two = await start(ttl=0.3), await start(ttl=0.3)
    two.model.gate("g").opened.set()
    handle = await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    waiting = await two.send("say 1")
    one.crash()
    assert (await waiting.result()).reply == "1"
    turn = await two.ended(handle.turn_id)
    assert (turn.state, turn.attempt, turn.reply) == (TurnState.COMPLETED, 2, "0")
    assert [text for text in two.sent() if "say" in text] == ["wait g\nsay 0", "say 1"]


@pytest.mark.parametrize(
    ("settings", "state"), [(TurnSettings(), TurnState.COMPLETED), (GIVE_UP, TurnState.FAILED)]
)
async def test_who_listens_to_a_turn_of_a_crashed_replica_gets_its_end(
    start: StartNode, settings: TurnSettings, state: TurnState
) -> None:
    one, two = await start(ttl=0.3, settings=settings), await start(ttl=0.3, settings=settings)
    two.model.gate("g").opened.set()
    await one.send("wait g\nsay 0", message_id="m1")
    await one.model.gate("g").reached.wait()
    joined = await two.send("wait g\nsay 0", message_id="m1")
    one.crash()
    assert (await joined.result()).state is state


async def test_a_replica_taken_for_dead_writes_nothing_more_and_starts_anew(start: StartNode) -> None:
    one, two = await start(crashes=False), await start(crashes=False, opened=["g"])
    handle = await one.send("wait g\nsay 0")
    gate = one.model.gate("g")
    await gate.reached.wait()
    old_id = one.opened.runner.replica_id
    # As if it had stood still: its row goes, as another replica would remove it after its ttl.
    one.stands_still()
    await two.buries(one)
    await two.opened.replica._clear_up()
    await two.model.gate("g").reached.wait()
    gate.opened.set()
    turn = await handle.result()
    assert (turn.state, turn.attempt, turn.reply) == (TurnState.COMPLETED, 2, "0"), "as it was taken over"
    await one.beats()
    assert one.opened.runner.replica_id != old_id
    assert (await one.ask("say next")).reply == "next"
    texts = [getattr(stored.message, "text", None) for stored in await one.messages()]
    assert texts == ["wait g\nsay 0", "0", "say next", "next"]


async def test_a_replica_taken_for_dead_goes_on_with_its_turn_under_its_new_id(start: StartNode) -> None:
    one, two = await start(crashes=False), await start(crashes=False)
    handle = await one.send("wait g\nsay 0")
    gate = one.model.gate("g")
    await gate.reached.wait()
    one.stands_still()
    two.stands_still()
    await two.buries(one)
    # It finds the loss by a look, before it beats: what it takes under its old id would be taken from it.
    await one.opened.replica._look()
    while (await one.runtime.turn("a", "u", handle.turn_id)).attempt == 1:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.02)
    await two.opened.replica._clear_up()
    assert not await two.store.orphans()
    gate.opened.set()
    turn = await handle.result()
    assert (turn.state, turn.attempt, turn.reply) == (TurnState.COMPLETED, 2, "0")
    assert not two.model.requests


async def test_who_waits_is_given_the_answer_that_another_replica_made_meanwhile(start: StartNode) -> None:
    one, two = await start(), await start()
    gate = two.model.gate("g")
    first = await two.send("wait g\nsay 0")
    await gate.reached.wait()
    waiting = await one.send("say 1", message_id="m1")
    # As if it stood still, was taken for dead, and went on when all was done.
    queue = one.opened.runner._queues[KEY]
    one.opened.runner.closing = True
    queue.wake()
    await asyncio.wait((queue.task,))
    one.opened.runner.closing = False
    await two.buries(one)
    gate.opened.set()
    await first.result()
    await two.opened.replica._clear_up()
    answered = await two.ask("say 1", message_id="m1")
    await one.opened.runner.look(KEY)
    turn = await waiting.result()
    assert (turn.id, turn.reply) == (answered.id, "1")


async def test_a_session_deleted_by_another_process_ends_the_turn_here(start: StartNode) -> None:
    one, two = await start(ttl=0.3), await start(ttl=0.3)
    handle = await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    waiting = await one.send("say 1")
    assert await two.runtime.delete_session(KEY)
    for ended in (await handle.result(), await waiting.result()):
        assert (ended.state, ended.reason) == (TurnState.CANCELED, Reason.SESSION_DELETED)
    assert one.model.running == 0


async def test_who_listens_is_told_the_end_although_a_beat_finds_the_loss_as_well(start: StartNode) -> None:
    one, two = await start(), await start()
    handle = await one.send("wait g\nsay 0")
    gate = one.model.gate("g")
    await gate.reached.wait()
    assert await two.runtime.delete_session(KEY)

    class Beat(logging.Handler):
        """Comes just when the turn has found that it was lost."""

        def emit(self, record: logging.LogRecord) -> None:
            one.opened.runner.drop(handle.turn_id)

    beat = Beat()
    logging.getLogger("hector.runtime.turns").addHandler(beat)
    try:
        gate.opened.set()
        async with asyncio.timeout(10):
            assert (await handle.result()).reason == Reason.SESSION_DELETED
    finally:
        logging.getLogger("hector.runtime.turns").removeHandler(beat)


async def test_a_message_that_waits_again_after_a_deletion_leaves_nobody_without_an_end(
    start: StartNode,
) -> None:
    one, two = await start(), await start()
    await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    waiting = await one.send("say 1", message_id="m1")
    # It looks away, and finds the same message in the queue of another session of that name.
    await one.messages()
    looking = one.opened.runner._queues[KEY].task
    looking.cancel()
    await asyncio.wait((looking,))
    assert await two.runtime.delete_session(KEY)
    gate = two.model.gate("h")
    await two.send("wait h\nsay 2")
    await gate.reached.wait()
    again = await one.send("say 1", message_id="m1")
    gate.opened.set()
    async with asyncio.timeout(10):
        assert (await again.result()).reply == "1"
        assert (await waiting.result()).reason == Reason.SESSION_DELETED


async def test_a_stop_leaves_waiting_messages_to_the_next_start(start: StartNode) -> None:
    one = await start()
    await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    waiting = await one.send("say 1", message_id="m1")
    await one.runtime.close(0.0)
    with pytest.raises(StoreUnavailableError, match="will be answered"):
        await waiting.result()
    two = await start(opened=["g"])
    again = await two.ask("say 1", message_id="m1")
    assert (again.id, again.reply) == (waiting.turn_id, "1")


async def test_a_clean_stop_leaves_no_trace_of_the_replica(start: StartNode, backend: Backend) -> None:
    one, two = await start(), await start()
    await one.runtime.close()
    assert [row.id for row in await two.store.replicas()] == [two.opened.runner.replica_id]
    assert not list(backend.folder.glob(f"*{one.opened.runner.replica_id}*"))


async def test_a_turn_that_was_begun_here_and_is_run_by_nobody_blocks_no_session(start: StartNode) -> None:
    node = await start()
    leaked = Arrival(KEY, UserMessage((Text("lost"),)), "m1", new_turn_id(), node.opened.runner.replica_id)
    await node.store.accept(leaked, TailLimit(10))
    waiting = await node.send("say next")
    await node.beats()
    assert (await node.runtime.turn("a", "u", leaked.turn_id)).state is TurnState.WORKING, "it may just begin"
    await node.beats()
    turn = await node.ended(leaked.turn_id)
    assert (turn.state, turn.attempt) == (TurnState.COMPLETED, 2)
    assert (await waiting.result()).reply == "next"


async def test_what_is_still_being_accepted_is_not_run_by_nobody(start: StartNode) -> None:
    calls = []

    async def charge() -> str:
        """Once."""
        calls.append("charged")
        return "done"

    settings = TurnSettings(recovery=Recovery("resume", 3))
    node = await start(settings=settings, tools={"charge": FunctionTool(charge)})
    accept, replica = node.store.accept, node.opened.replica

    async def without_an_answer(arrival: Arrival, limit: TailLimit) -> Accepted:
        node.store.accept = accept  # type: ignore[method-assign]
        await accept(arrival, limit)
        for _ in range(2):
            await replica._check_own_turns()
        await asyncio.gather(*(queue.task for queue in node.opened.runner._queues.values()))
        raise OutcomeUnknownError("no answer to the commit")

    node.store.accept = without_an_answer  # type: ignore[method-assign]
    turn = await node.ask("call charge\nsay end")
    assert (turn.state, turn.attempt, turn.reply) == (TurnState.COMPLETED, 1, "end")
    assert calls == ["charged"]


async def test_a_turn_that_runs_elsewhere_is_canceled_here_and_stops_there(start: StartNode) -> None:
    one, two = await start(), await start()
    handle = await one.send("wait g\nsay 0")
    await one.model.gate("g").reached.wait()
    canceled = await two.runtime.cancel("a", "u", handle.turn_id)
    assert (canceled.state, canceled.reason) == (TurnState.CANCELED, Reason.CANCELED)
    assert (await two.ask("say next")).reply == "next", "its session is free at once"
    await one.beats()
    assert (await handle.result()).state is TurnState.CANCELED
    assert one.model.running == 0


async def test_a_turn_that_was_lost_and_is_run_by_nobody_goes_on_where_it_was_lost(start: StartNode) -> None:
    node = await start()
    await node.send("wait g\nsay 0")
    await node.model.gate("g").reached.wait()
    # It is begun by the queue of its session.
    queued = await node.send("wait h\nsay 1")
    node.model.gate("g").opened.set()
    await node.model.gate("h").reached.wait()
    node.stands_still()
    await node.buries(node)
    await node.beats()
    while len(node.model.requests) < 3:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.01)
    node.model.gate("h").opened.set()
    turn = await queued.result()
    assert (turn.state, turn.reply) == (TurnState.COMPLETED, "1")


async def test_a_turn_goes_on_here_while_its_lost_run_is_still_being_broken_off(start: StartNode) -> None:
    called, let_go = [asyncio.Event(), asyncio.Event()], asyncio.Event()

    async def stubborn() -> str:
        """Takes its time to stop."""
        first = not called[0].is_set()
        called[0 if first else 1].set()
        try:
            await (asyncio.Event() if first else let_go).wait()
        finally:
            await let_go.wait()
        return "done"

    node = await start(tools={"stubborn": FunctionTool(stubborn, idempotent=True)})
    handle = await node.send("call stubborn\nsay end")
    await called[0].wait()
    node.stands_still()
    await node.buries(node)
    await node.beats()
    await called[1].wait()
    let_go.set()
    turn = await handle.result()
    assert (turn.state, turn.attempt, turn.reply) == (TurnState.COMPLETED, 2, "end")


async def test_a_turn_that_has_just_ended_is_not_taken_for_lost(
    start: StartNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hector.runtime.turns")
    node = await start(crashes=False)
    end, stored, looked = node.store.end, asyncio.Event(), asyncio.Event()

    async def ends_late(*asked: Any, **more: Any) -> Any:
        turn = await end(*asked, **more)
        stored.set()
        await looked.wait()
        return turn

    monkeypatch.setattr(node.store, "end", ends_late)
    handle = await node.send("say 0")
    await stored.wait()
    await node.opened.replica._look()
    looked.set()
    assert (await handle.result()).reply == "0"
    assert "is not this replica's any longer" not in caplog.text
