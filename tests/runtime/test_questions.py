"""Questions to the user: they outlive the process that asked them."""

import asyncio
from typing import Any

import pytest

from hector.domain.errors import (
    InputRequiredError,
    NotPausedError,
    StoreUnavailableError,
    WaitedTooLongError,
)
from hector.domain.messages import ModelMessage, Text, ToolMessage, UserMessage
from hector.domain.turns import Recovery, TurnSettings, TurnState
from hector.tools.function import FunctionTool
from tests.backends import BACKENDS
from tests.runtime.conftest import KEY, Node, StartNode

pytestmark = pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)

RESUME = TurnSettings(recovery=Recovery("resume"))


def _ask() -> str:
    """Asks."""
    raise InputRequiredError("which colour?")


def _ask_more() -> str:
    """Asks another thing."""
    raise InputRequiredError("which brush?")


async def _paused(node: Node, turn_id: str) -> str:
    """The question that the turn paused with, whoever ran it."""
    while not (turn := await node.runtime.turn("a", "u", turn_id)).state.paused:
        assert not turn.state.terminal, turn
        await asyncio.sleep(0.02)  # nobody tells who does not listen
    return turn.reply


@pytest.mark.parametrize("crashes", [True, False])
async def test_questions_outlive_the_process_that_asked_them(start: StartNode, crashes: bool) -> None:
    go_on = asyncio.Event()

    async def slow() -> str:
        """Takes its time."""
        await go_on.wait()
        return "done"

    tools = {
        "ask": FunctionTool(_ask),
        "more": FunctionTool(_ask_more),
        "slow": FunctionTool(slow, idempotent=True),
    }
    one = await start(tools=tools, settings=RESUME)
    two = None if crashes else await start(tools=tools, settings=RESUME)
    handle = await one.send("call slow\ncall more\ncall ask\nsay painted")
    while len(await one.messages()) < 4:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.01)
    if crashes:
        one.crash()
    else:
        await one.runtime.close(0.0)
    go_on.set()
    two = two or await start(tools=tools, settings=RESUME)
    assert await _paused(two, handle.turn_id) == "which brush?\nwhich colour?"
    assert not two.model.requests
    turn = await two.ask("red, a broad one", task_id=handle.turn_id)
    assert (turn.id, turn.state) == (handle.turn_id, TurnState.COMPLETED)


async def test_an_answer_that_failed_and_is_sent_again_is_read_with_what_it_answers(start: StartNode) -> None:
    node = await start(tools={"ask": FunctionTool(_ask, idempotent=True)})
    paused = await node.ask("paint my house\ncall ask")
    failed = await node.ask("fail unreachable", task_id=paused.id, message_id="a1")
    assert (failed.id, failed.state, failed.retryable) == (paused.id, TurnState.FAILED, True)
    sent = list(node.model.requests[-1].messages)
    assert [type(each) for each in sent] == [
        UserMessage,
        ModelMessage,
        ToolMessage,
        ModelMessage,
        UserMessage,
    ]
    assert sent[0] == UserMessage((Text("paint my house\ncall ask"),))
    for _ in range(2):
        again = await node.ask("fail unreachable", task_id=paused.id, message_id="a1")
        assert again.id not in (failed.id, paused.id)
        assert list(node.model.requests[-1].messages) == sent
        failed = again


@pytest.mark.parametrize("how", ["answered", "deleted", "stopped"])
async def test_who_watches_a_paused_turn_elsewhere_learns_that_it_goes_on(start: StartNode, how: str) -> None:
    tools = {"ask": FunctionTool(_ask, idempotent=True)}
    one, two = await start(tools=tools), await start(tools=tools)
    paused = await one.runtime.turn("a", "u", (await one.ask("call ask")).id)
    watching = asyncio.create_task(two.runtime.until_gone_on(paused))
    await one.ask("say another turn of the session")
    assert not watching.done()
    match how:
        case "answered":
            await one.ask("red", task_id=paused.id)
            await watching
        case "deleted":
            await one.runtime.delete_session(KEY)
            await watching
        case _:
            await two.runtime.close(0.0)
            with pytest.raises(StoreUnavailableError, match="subscribe again"):
                await watching


async def test_the_model_is_told_the_id_of_the_users_newest_message(start: StartNode) -> None:
    node = await start(tools={"ask": FunctionTool(_ask, idempotent=True)})
    paused = await node.ask("call ask", message_id="m1")
    await node.ask("call ask\nsay more", task_id=paused.id, message_id="a1")
    assert [request.message_id for request in node.model.requests] == ["m1", "a1"]
    await node.ask("call none\nsay done", task_id=paused.id, message_id="a2")
    assert [request.message_id for request in node.model.requests][2:] == ["a2", "a2"]


async def test_who_answers_and_waits_too_long_is_told_so_and_may_answer_again(start: StartNode) -> None:
    tools = {"ask": FunctionTool(_ask)}
    one, two = await start(tools=tools), await start(tools=tools)
    paused = await one.ask("call ask")
    other = await one.send("wait g\nsay other")
    await one.model.gate("g").reached.wait()
    answer = await one.send("say blue", task_id=paused.id, message_id="a1")
    joined = await two.send("say blue", task_id=paused.id, message_id="a1")
    (local,) = [turn for turn in one.opened.runner._locals if not turn.task]
    one.opened.runner._waited_enough(local)
    for handle in (answer, joined):
        with pytest.raises(WaitedTooLongError, match="max_wait") as waited:
            await handle.result()
        assert (waited.value.turn_id, waited.value.retryable) == (paused.id, True)
    turn = await one.runtime.turn("a", "u", paused.id)
    assert (turn.state, turn.reply) == (TurnState.INPUT_REQUIRED, "which colour?")
    one.model.gate("g").opened.set()
    await other.result()
    ended = await two.ask("say blue", task_id=paused.id, message_id="a1")
    assert (ended.id, ended.state, ended.reply) == (paused.id, TurnState.COMPLETED, "blue")


async def test_who_listens_elsewhere_and_is_late_is_told_the_question_and_not_what_came_of_it(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {"ask": FunctionTool(_ask)}
    one, two = await start(tools=tools), await start(tools=tools)
    progress, late = two.store.progress, asyncio.Event()

    async def waits(*asked: Any) -> Any:
        await late.wait()
        return await progress(*asked)

    monkeypatch.setattr(two.store, "progress", waits)
    first = await one.send("wait g\ncall ask", message_id="m1")
    await one.model.gate("g").reached.wait()
    joined = await two.send("wait g\ncall ask", message_id="m1")
    waiting = asyncio.create_task(joined.result())
    one.model.gate("g").opened.set()
    paused = await first.result()
    answered = await one.ask("say painted", message_id="m2", task_id=paused.id)
    assert answered.state is TurnState.COMPLETED
    late.set()
    told = await waiting
    assert (told.state, told.reply) == (TurnState.INPUT_REQUIRED, "which colour?")
    assert told == await (await two.send("wait g\ncall ask", message_id="m1")).result(), "as a repeat is"


async def test_whose_message_is_taken_by_another_is_told_its_question_and_not_what_came_of_it(
    start: StartNode,
) -> None:
    tools = {"ask": FunctionTool(_ask)}
    one, two = await start(tools=tools), await start(tools=tools, opened=["g"])
    before = await one.send("wait g\nsay before")
    await one.model.gate("g").reached.wait()
    handle = await two.send("call ask", message_id="m1")
    # As if it stood still, was taken for dead, and went on when all was done.
    two.stands_still()
    queue = two.opened.runner._queues[KEY]
    two.opened.runner.closing = True
    queue.wake()
    await asyncio.wait((queue.task,))
    one.model.gate("g").opened.set()
    await before.result()
    await one.buries(two)
    await one.opened.replica._clear_up()
    assert await _paused(one, handle.turn_id) == "which colour?"
    await one.ask("say painted", message_id="m2", task_id=handle.turn_id)
    two.opened.runner.closing = False
    await two.opened.runner.look(KEY)
    told = await handle.result()
    assert (told.state, told.reply) == (TurnState.INPUT_REQUIRED, "which colour?")


async def test_an_answer_that_came_too_late_is_refused_also_while_it_still_stands_in_the_queue(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {"ask": FunctionTool(_ask)}
    one, two = await start(tools=tools), await start(tools=tools)
    paused = await one.ask("call ask")
    between = await one.send("wait g\nsay between")
    await one.model.gate("g").reached.wait()
    first = await one.send("wait h\nsay red", message_id="m1", task_id=paused.id)
    late = await one.send("say blue", message_id="m2", task_id=paused.id)
    one.model.gate("g").opened.set()
    await between.result()
    await one.model.gate("h").reached.wait()
    take, go_on = one.store.take, asyncio.Event()

    async def waits(*asked: Any, **more: Any) -> Any:
        await go_on.wait()
        return await take(*asked, **more)

    monkeypatch.setattr(one.store, "take", waits)
    one.model.gate("h").opened.set()
    assert (await first.result()).reply == "red"
    joined = await two.send("say blue", message_id="m2", task_id=paused.id)
    with pytest.raises(NotPausedError):
        await joined.result()
    go_on.set()
    with pytest.raises(NotPausedError):
        await late.result()
