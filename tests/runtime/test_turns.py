"""Turns as a caller of one process sees them."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from hector.domain.errors import (
    BusyError,
    ConflictError,
    InvalidError,
    NotFoundError,
    NotPausedError,
    OutcomeUnknownError,
    StoreUnavailableError,
    TooLargeError,
)
from hector.domain.events import TextDelta, TurnEnded, TurnStarted, TurnWaiting
from hector.domain.ids import SessionKey
from hector.domain.memory import TailLimit
from hector.domain.messages import ModelMessage, Text, Usage, UserMessage
from hector.domain.models import ModelReply, ModelRequest
from hector.domain.sessions import QueueState
from hector.domain.turns import Accepted, Arrival, Reason, Recovery, TurnSettings, TurnState
from hector.runtime.handle import TurnHandle
from tests.runtime.conftest import KEY, Node, StartNode


async def test_a_message_is_answered_and_stored(node: Node) -> None:
    turn = await node.ask("say hello")
    assert (turn.state, turn.reply) == (TurnState.COMPLETED, "hello")
    assert [stored.seq for stored in await node.messages()] == [1, 2]
    stored = await node.runtime.turn("a", "u", turn.id)
    assert (stored.state, stored.reply) == (TurnState.COMPLETED, "hello")


async def test_the_end_is_told_after_the_commit(node: Node) -> None:
    handle = await node.send("stream 3 hello")
    async for event, _ in handle.told():
        if isinstance(event, TurnEnded):
            stored = await node.runtime.turn("a", "u", handle.turn_id)
            assert stored.state is TurnState.COMPLETED


async def test_events_come_in_order_and_to_each_listener_whole(node: Node) -> None:
    handle = await node.send("stream 3 hello")
    one, two = await asyncio.gather(*(_collect(handle) for _ in range(2)))
    late = await _collect(handle)
    assert one == two == late
    assert isinstance(one[0], TurnStarted)
    assert isinstance(one[-1], TurnEnded)
    assert "".join(event.text for event in one if isinstance(event, TextDelta)) == "hello"


async def test_a_caller_that_leaves_does_not_stop_the_turn(node: Node) -> None:
    gate = node.model.gate("g")
    caller = asyncio.create_task(node.ask("wait g\nsay done"))
    await gate.reached.wait()
    caller.cancel()
    await asyncio.wait([caller])
    gate.opened.set()
    turn = await node.ask("say next")
    assert turn.state is TurnState.COMPLETED
    assert [stored.message.text for stored in await node.messages() if stored.seq == 2] == ["done"]  # type: ignore[union-attr]


async def test_a_caller_that_leaves_while_its_message_is_stored_does_not_stop_the_turn(node: Node) -> None:
    caller = asyncio.create_task(node.ask("say done", message_id="m1"))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    turn = await node.ask("say done", message_id="m1")
    assert (turn.state, turn.reply) == (TurnState.COMPLETED, "done")
    assert len(await node.messages()) == 2


async def test_messages_to_a_busy_session_are_answered_one_by_one_in_order(node: Node) -> None:
    gate = node.model.gate("g")
    first = await node.send("wait g\nsay 0")
    await gate.reached.wait()
    rest = [await node.send(f"say {number}") for number in range(1, 6)]
    assert [
        event.ahead
        for event in [(await anext(handle.told())).event for handle in rest]
        if isinstance(event, TurnWaiting)
    ] == [1, 2, 3, 4, 5]
    assert (await node.runtime.session(KEY)).waiting == 5
    gate.opened.set()
    turns = [await handle.result() for handle in (first, *rest)]
    assert [turn.reply for turn in turns] == ["0", "1", "2", "3", "4", "5"]
    stored = await node.messages()
    assert [message.seq for message in stored] == list(range(1, 13))
    assert [message.turn_id for message in stored] == [turn.id for turn in turns for _ in range(2)]
    assert (await node.runtime.session(KEY)).waiting == 0


async def test_each_turn_is_sent_all_that_came_before_it(node: Node) -> None:
    handles = [await node.send(f"say {number}") for number in range(4)]
    for handle in handles:
        await handle.result()
    assert node.sent() == ["say 0", "0", "say 1", "1", "say 2", "2", "say 3"]


async def test_a_repeat_of_a_running_turn_joins_it(node: Node) -> None:
    gate = node.model.gate("g")
    first = await node.send("stream 2 ab\nwait g\nsay c", message_id="m1")
    await gate.reached.wait()
    again = await node.send("stream 2 ab\nwait g\nsay c", message_id="m1")
    assert again.repeated
    assert again.turn_id == first.turn_id
    gate.opened.set()
    assert await _collect(again) == await _collect(first)
    assert len(node.model.requests) == 1


async def test_a_repeat_of_a_waiting_turn_joins_it(node: Node) -> None:
    gate = node.model.gate("g")
    await node.send("wait g\nsay 0")
    await gate.reached.wait()
    first = await node.send("say 1", message_id="m1")
    again = await node.send("say 1", message_id="m1")
    gate.opened.set()
    assert (await again.result()).reply == (await first.result()).reply == "1"
    assert len(await node.messages()) == 4


async def test_a_repeat_of_an_answered_message_gets_its_first_answer(node: Node) -> None:
    first = await node.ask("say once", message_id="m1")
    await node.ask("say other")
    again = await node.ask("say once", message_id="m1")
    assert (again.id, again.reply) == (first.id, "once")
    assert len(node.model.requests) == 2


async def test_repeats_at_once_run_one_turn(node: Node) -> None:
    turns = await asyncio.gather(*(node.ask("say once", message_id="m1") for _ in range(20)))
    assert {turn.id for turn in turns} == {turns[0].id}
    assert len(node.model.requests) == 1


async def test_the_same_id_with_other_content_is_a_conflict(node: Node) -> None:
    await node.ask("say one", message_id="m1")
    with pytest.raises(ConflictError, match="'m1' was used"):
        await node.ask("say two", message_id="m1")


async def test_a_first_message_with_a_uuid_finds_its_session_again(node: Node) -> None:
    message = UserMessage((Text("say hi"),))
    message_id = "5f3c1f9e-94f1-4ad9-a66c-9a1f84dd4b86"
    first = await node.runtime.send("a", "u", message, message_id=message_id)
    again = await node.runtime.send("a", "u", message, message_id=message_id)
    assert (again.key, again.turn_id) == (first.key, first.turn_id)
    other_user = await node.runtime.send("a", "v", message, message_id=message_id)
    assert other_user.key.session_id != first.key.session_id


async def test_a_failed_model_fails_the_turn_and_not_the_session(node: Node) -> None:
    failed = await node.ask("fail unreachable", message_id="m1")
    assert (failed.state, failed.reason, failed.retryable) == (TurnState.FAILED, "model_unreachable", True)
    assert (await node.ask("say next")).reply == "next"
    assert node.sent()[0].endswith("[not answered: model_unreachable]")


async def test_a_repeat_of_a_failed_turn_begins_a_new_one_and_hides_the_old(node: Node) -> None:
    failed = await node.ask("fail unreachable", message_id="m1")
    again = await node.ask("fail unreachable", message_id="m1")
    assert again.id != failed.id
    assert (await node.runtime.turn("a", "u", failed.id)).superseded
    assert node.sent() == ["fail unreachable"]


async def test_on_busy_reject_answers_at_once(start: StartNode) -> None:
    node = await start(settings=TurnSettings(on_busy="reject"))
    gate = node.model.gate("g")
    running = await node.send("wait g\nsay 0")
    await gate.reached.wait()
    with pytest.raises(BusyError) as refused:
        await node.send("say 1")
    assert refused.value.turn_id == running.turn_id
    gate.opened.set()
    await running.result()
    assert (await node.ask("say 1")).reply == "1"


async def test_who_waits_too_long_is_canceled_and_may_try_again(start: StartNode) -> None:
    node = await start(settings=TurnSettings(max_wait=0.05))
    gate = node.model.gate("g")
    running = await node.send("wait g\nsay 0")
    await gate.reached.wait()
    turn = await node.ask("say 1", message_id="m1")
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.CANCELED, Reason.MAX_WAIT, True)
    gate.opened.set()
    await running.result()
    again = await node.ask("say 1", message_id="m1")
    assert (again.state, again.reply) == (TurnState.COMPLETED, "1")
    assert again.id != turn.id


async def test_canceling_stops_the_model_and_frees_the_session(node: Node) -> None:
    gate = node.model.gate("g")
    handle = await node.send("stream 2 ab\nwait g\nsay c")
    await gate.reached.wait()
    canceled = await node.runtime.cancel("a", "u", handle.turn_id)
    assert (canceled.state, canceled.reason) == (TurnState.CANCELED, Reason.CANCELED)
    assert node.model.running == 0
    assert (await handle.result()).state is TurnState.CANCELED
    await node.ask("say next")
    assert next(text for text in node.sent() if "ab" in text).endswith("[not answered: canceled]")


async def test_canceling_a_waiting_turn_takes_it_out_of_the_queue(node: Node) -> None:
    gate = node.model.gate("g")
    running = await node.send("wait g\nsay 0")
    await gate.reached.wait()
    waiting = await node.send("say 1")
    last = await node.send("say 2")
    assert (await node.runtime.cancel("a", "u", waiting.turn_id)).state is TurnState.CANCELED
    assert (await waiting.result()).state is TurnState.CANCELED
    gate.opened.set()
    assert (await running.result()).reply == "0"
    assert (await last.result()).reply == "2"
    assert len(await node.messages()) == 4


async def test_canceling_what_has_ended_changes_nothing(node: Node) -> None:
    turn = await node.ask("say x")
    assert (await node.runtime.cancel("a", "u", turn.id)).state is TurnState.COMPLETED
    with pytest.raises(NotFoundError):
        await node.runtime.cancel("a", "u", "no-such-task")


async def test_deleting_a_session_ends_its_turns_for_all_who_wait(node: Node) -> None:
    gate = node.model.gate("g")
    running = await node.send("wait g\nsay 0")
    await gate.reached.wait()
    waiting = await node.send("say 1")
    assert await node.runtime.delete_session(KEY)
    for handle in (running, waiting):
        turn = await handle.result()
        assert (turn.state, turn.reason) == (TurnState.CANCELED, Reason.SESSION_DELETED)
    assert node.model.running == 0
    with pytest.raises(NotFoundError):
        await node.runtime.turn("a", "u", running.turn_id)
    assert await node.messages() == []


async def test_a_session_deleted_and_made_again_under_a_running_turn_starts_empty(node: Node) -> None:
    gate = node.model.gate("g")
    old = await node.send("wait g\nsay old")
    await gate.reached.wait()
    await node.store.delete(KEY)  # by somebody who does not tell this process
    new = await node.ask("say new")
    gate.opened.set()
    assert (await old.result()).reason == Reason.SESSION_DELETED
    assert new.reply == "new"
    assert [stored.message.text for stored in await node.messages()] == ["say new", "new"]  # type: ignore[union-attr]


async def test_a_finished_task_takes_no_further_message(node: Node) -> None:
    turn = await node.ask("say x")
    with pytest.raises(NotPausedError):
        await node.send("say y", task_id=turn.id)


async def test_bad_messages_are_refused_before_anything_is_stored(node: Node) -> None:
    with pytest.raises(InvalidError, match="NUL"):
        await node.send("a\0b")
    with pytest.raises(InvalidError, match="surrogate"):
        await node.send("a\ud800b")
    with pytest.raises(TooLargeError):
        await node.send("x" * 16_000_001)
    with pytest.raises(InvalidError, match="parts"):
        await node.runtime.send("a", "u", UserMessage(()), session_id="s")
    with pytest.raises(TooLargeError, match="191"):
        await node.runtime.send("a", "u", UserMessage((Text("x"),)), session_id="s" * 192)
    with pytest.raises(NotFoundError, match="known: a"):
        await node.runtime.send("b", "u", UserMessage((Text("x"),)), session_id="s")
    assert await node.runtime.find_session(KEY) is None


async def test_a_stop_lets_running_turns_end(node: Node) -> None:
    gate = node.model.gate("g")
    running = await node.send("wait g\nsay 0")
    await gate.reached.wait()
    closing = asyncio.create_task(node.opened.runner.close(10.0))
    await asyncio.sleep(0)
    gate.opened.set()
    await closing
    assert (await running.result()).reply == "0"


async def test_a_stopping_server_takes_no_further_messages(node: Node) -> None:
    await node.opened.runner.close(0.0)
    with pytest.raises(StoreUnavailableError, match="takes no further"):
        await node.send("say 0")


async def test_what_does_not_end_in_time_and_must_not_run_again_is_ended_and_says_so(
    start: StartNode,
) -> None:
    node = await start(settings=TurnSettings(recovery=Recovery("fail")))
    gate = node.model.gate("g")
    running = await node.send("wait g\nsay 0")
    await gate.reached.wait()
    await node.opened.runner.close(0.0)
    turn = await running.result()
    assert (turn.state, turn.reason, turn.retryable) == (TurnState.FAILED, Reason.SHUTDOWN, True)


async def _collect(handle: object) -> list[object]:
    return [event async for event, _ in handle.told()]  # type: ignore[attr-defined]


async def test_a_turn_stopped_before_its_first_step_ends_for_all_who_wait(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, runner = node.store.accept, node.opened.runner

    async def accept_and_lose(arrival: Arrival, limit: TailLimit) -> Accepted:
        accepted = await accept(arrival, limit)
        await node.store.delete(KEY)
        # As where one group commit held both: this comes before the turn's first step.
        asyncio.get_running_loop().call_soon(runner.drop, arrival.turn_id)
        return accepted

    monkeypatch.setattr(node.store, "accept", accept_and_lose)
    turn = await node.ask("say x")
    assert (turn.state, turn.reason) == (TurnState.CANCELED, Reason.SESSION_DELETED)
    await runner.close(0.0)


async def test_a_provider_that_claims_absurd_usage_breaks_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def respond(request: ModelRequest) -> AsyncGenerator[ModelReply, None]:
        del request
        yield ModelReply(ModelMessage((Text("hi"),)), Usage(2**63, 2**80))

    monkeypatch.setattr(node.model, "respond", respond)
    assert (await node.ask("hello")).reply == "hi"


async def test_a_message_that_comes_while_the_queue_is_read_is_not_lost(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start(ttl=3600.0)  # or the heartbeat would find it after all
    gate, look = node.model.gate("g"), node.store.queue
    late: list[TurnHandle] = []
    came = asyncio.Event()

    async def slow_look(key: SessionKey) -> QueueState:
        state = await look(key)
        if not came.is_set():
            late.append(await node.send("say late"))
            came.set()
        return state

    running = await node.send("wait g\nsay 0")
    await gate.reached.wait()
    monkeypatch.setattr(node.store, "queue", slow_look)
    waiting = await node.send("say 1")
    await came.wait()
    gate.opened.set()
    assert [(await handle.result()).reply for handle in (running, waiting, *late)] == ["0", "1", "late"]


async def test_a_commit_without_an_answer_is_never_told_as_not_done(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = node.store.accept
    tries = 0

    async def lose_the_answer_and_then_the_database(arrival: Arrival, limit: TailLimit) -> Accepted:
        nonlocal tries
        tries += 1
        if tries == 1:
            await accept(arrival, limit)
            raise OutcomeUnknownError("no answer")
        raise StoreUnavailableError("away")

    monkeypatch.setattr(node.store, "accept", lose_the_answer_and_then_the_database)
    with pytest.raises(OutcomeUnknownError):
        await node.send("say x")
    assert tries == 2
