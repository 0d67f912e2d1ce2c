"""Sessions that outgrow their budget are summarised: behind the reply, or before the model is asked."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from hector.domain.errors import GaveWayError, ModelUnavailableError
from hector.domain.events import Summarizing, TurnEnded, TurnStarted
from hector.domain.memory import Tail, TailLimit
from hector.domain.messages import ToolMessage, UserMessage
from hector.domain.models import ModelRequest
from hector.domain.turns import TurnState
from hector.llm.scripted import Fail, Line, Wait, notes
from hector.memory.context import SUMMARY_HEAD
from hector.memory.tokens import counter_for
from hector.runtime import compactor
from hector.runtime.handle import TurnHandle
from tests.runtime.conftest import KEY, Node, StartNode

BUDGET = 200
TOKENS = counter_for("gpt-4o")
WORDS = "one two three four five six seven eight nine ten eleven twelve a b c d e f"
"""A turn that says them twice takes 50 tokens: a summary is due after three, and all of four does not fit."""
THREE = ("ALPHA-1", "ALPHA-2", "ALPHA-3")
FOUR = (*THREE, "ALPHA-4")


def slowly(request: ModelRequest) -> Sequence[Line]:
    return [Wait("notes"), *notes(request)]


async def talk(node: Node, *facts: str) -> None:
    for fact in facts:
        turn = await node.ask(f"{fact} {WORDS}")
        assert turn.state is TurnState.COMPLETED


async def told(handle: TurnHandle) -> list[type]:
    kinds = [type(event) async for event, _ in handle.told()]
    return [each for each in kinds if each in (TurnStarted, Summarizing, TurnEnded)]


async def tail(node: Node) -> Tail:
    return await node.store.tail(KEY, None, TailLimit(100))


def assert_within_budget(node: Node) -> None:
    *before, _ = node.model.requests[-1].messages
    texts = [each.text for each in before if not isinstance(each, ToolMessage)]
    assert sum(4 + TOKENS.count(text) for text in texts) <= BUDGET


async def test_a_session_that_grows_is_summarised_behind_the_reply(start: StartNode) -> None:
    node = await start(budget=BUDGET)
    await talk(node, *THREE[:2])
    assert len(node.notes.requests) == 0, "it has not grown so far"
    await talk(node, THREE[2])
    await node.summarized()
    assert [request.yields for request in node.notes.requests] == [True]
    await node.ask("say ok")
    summary, *rest = node.sent()
    assert summary.startswith(SUMMARY_HEAD)
    assert "ALPHA-1" in summary
    assert not any("ALPHA-1" in each for each in rest)
    assert "ALPHA-3" in rest[0]
    assert_within_budget(node)
    assert [each.seq for each in await node.messages()] == list(range(1, 9)), "all of it is still there"


async def test_a_talk_without_end_stays_within_its_budget_and_is_summarised_from_summaries(
    start: StartNode,
) -> None:
    node = await start(budget=BUDGET)
    for number in range(20):
        await talk(node, f"ALPHA-{number}")
        await node.summarized()
        assert_within_budget(node)
    second = node.notes.requests[1].messages[0]
    assert isinstance(second, UserMessage)
    assert "ALPHA-0" in second.text, "by the notes so far"


async def test_a_turn_that_arrives_meanwhile_is_neither_delayed_nor_lost(start: StartNode) -> None:
    node = await start(budget=BUDGET, notes=slowly)
    await talk(node, *THREE)
    await node.notes.gate("notes").reached.wait()
    assert (await node.ask("say while you write")).reply == "while you write"
    node.notes.gate("notes").opened.set()
    await node.summarized()
    left = await tail(node)
    assert left.summary
    assert [each.seq for each in left.messages] == list(range(left.summary.through_seq + 1, 9))
    assert left.summary.through_seq < 7


async def test_where_more_is_said_than_the_budget_holds_it_is_summarised_first_and_told(
    start: StartNode,
) -> None:
    node = await start(budget=BUDGET, notes=slowly)
    await talk(node, *FOUR)
    handle = await node.send("say ok")
    events = asyncio.create_task(told(handle))
    await node.notes.gate("notes").reached.wait()
    node.notes.gate("notes").opened.set()
    assert await events == [TurnStarted, Summarizing, TurnEnded]
    assert node.sent()[0].startswith(SUMMARY_HEAD)
    assert "ALPHA-1" in node.sent()[0]
    assert_within_budget(node)


async def test_without_a_background_it_is_summarised_when_a_turn_needs_it(start: StartNode) -> None:
    node = await start(budget=BUDGET, summarizes=False)
    await talk(node, *FOUR)
    await node.summarized()
    assert len(node.notes.requests) == 0
    assert await told(await node.send("say ok")) == [TurnStarted, Summarizing, TurnEnded]
    assert "ALPHA-1" in node.sent()[0]


async def test_what_is_told_of_a_summary_is_told_again_to_who_comes_later(start: StartNode) -> None:
    node = await start(budget=BUDGET, summarizes=False)
    await talk(node, *FOUR)
    gate = node.model.gate("g")
    handle = await node.send("say a\nwait g\nsay ok", message_id="m")
    await gate.reached.wait()
    again = await node.send("say a\nwait g\nsay ok", message_id="m")
    gate.opened.set()
    assert await told(again) == await told(handle) == [TurnStarted, Summarizing, TurnEnded]


async def test_a_summary_that_fails_leaves_turns_alone_and_is_tried_again_later(
    start: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    down = True

    def failing(request: ModelRequest) -> Sequence[Line]:
        return [Fail(ModelUnavailableError("it is down"))] if down else notes(request)

    node = await start(budget=BUDGET, notes=failing)
    with caplog.at_level(logging.WARNING, "hector"):
        await talk(node, *THREE)
        await node.summarized()
        assert "agent a: a session is not summarised" in caplog.text
        assert "it is down" in caplog.text
        asked = len(node.notes.requests)
        await talk(node, "ALPHA-4")
        assert await told(await node.send("say ok")) == [TurnStarted, TurnEnded]
        await node.summarized()
        assert len(node.notes.requests) == asked, "it rests"
    assert not node.sent()[0].startswith(SUMMARY_HEAD)
    assert_within_budget(node)
    down = False
    rests = node.opened.runner._compactor._rests
    rests["a"] = (0.0, rests["a"][1])
    await talk(node, "ALPHA-5")
    await node.summarized()
    assert rests == {}
    assert "ALPHA-1" in (await summary_text(node)), "what was cut meanwhile is not lost"


async def summary_text(node: Node) -> str:
    summary = (await tail(node)).summary
    assert summary
    return summary.text


async def test_a_summary_that_gave_way_is_made_after_the_next_turn(
    start: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(request: ModelRequest) -> Sequence[Line]:
        return [Fail(GaveWayError("others wait"))] if request.yields and others else notes(request)

    others = True
    node = await start(budget=BUDGET, notes=busy)
    with caplog.at_level(logging.INFO, "hector"):
        await talk(node, *THREE)
        await node.summarized()
        assert "not summarised" not in caplog.text
    others = False
    await node.ask("say ok")
    await node.summarized()
    assert "ALPHA-1" in await summary_text(node)


async def test_a_turn_goes_on_where_the_summary_that_it_waits_for_gives_way(start: StartNode) -> None:
    node = await start(budget=BUDGET, notes=lambda _: [Fail(GaveWayError("others wait"))], summarizes=False)
    await talk(node, *FOUR)
    assert (await node.ask("say ok")).reply == "ok"
    assert_within_budget(node)


async def test_the_rest_after_failures_grows_to_its_longest(start: StartNode) -> None:
    node = await start(budget=BUDGET, notes=lambda _: [Fail(ModelUnavailableError("down"))])
    await talk(node, *THREE)
    made = node.opened.runner._compactor
    pauses = []
    for _ in range(9):
        await node.summarized()
        pauses.append(made._rests["a"][1])
        made._rests["a"] = (0.0, pauses[-1])
        await node.ask("say ok")
    assert pauses[:3] == [5, 10, 20]
    assert pauses[-2:] == [300, 300]


async def test_a_defect_in_a_summary_is_logged_and_the_turn_goes_on(
    start: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: ModelRequest) -> Sequence[Line]:
        raise ZeroDivisionError

    node = await start(budget=BUDGET, notes=broken, summarizes=False)
    await talk(node, *FOUR)
    assert (await node.ask("say ok")).reply == "ok"
    assert "ZeroDivisionError" in caplog.text


async def test_a_turn_waits_for_a_summary_only_so_long(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compactor, "PATIENCE", 0.01)
    node = await start(budget=BUDGET, notes=slowly, summarizes=False)
    await talk(node, *FOUR)
    assert (await node.ask("say ok")).reply == "ok"
    assert_within_budget(node)
    node.notes.gate("notes").opened.set()
    await node.summarized()
    assert "ALPHA-1" in await summary_text(node), "it was made nevertheless"


async def test_a_session_deleted_meanwhile_gets_no_summary_nor_does_its_next_life(start: StartNode) -> None:
    node = await start(budget=BUDGET, notes=slowly)
    await talk(node, *THREE)
    await node.notes.gate("notes").reached.wait()
    await node.runtime.delete_session(KEY)
    await node.ask("say again")
    node.notes.gate("notes").opened.set()
    await node.summarized()
    assert (await tail(node)).summary is None
    await node.ask("say ok")
    assert node.sent() == ["say again", "again", "say ok"]


async def test_a_stop_breaks_a_summary_off(start: StartNode) -> None:
    node = await start(budget=BUDGET, notes=slowly)
    await talk(node, *THREE)
    await node.notes.gate("notes").reached.wait()
    await node.runtime.close()
    assert node.notes.running == 0


async def test_each_session_is_summarised_by_itself_and_once_at_a_time(start: StartNode) -> None:
    node = await start(budget=BUDGET, notes=slowly)
    await talk(node, *THREE)
    await node.notes.gate("notes").reached.wait()
    await node.ask("say ok")
    assert len(node.notes.requests) == 1
    node.notes.gate("notes").opened.set()
    await node.summarized()
    assert len(node.notes.requests) == 1


@pytest.mark.parametrize("backend", ["sqlite", "postgres", "mysql"], indirect=True)
async def test_of_two_replicas_summaries_one_is_kept(start: StartNode) -> None:
    one, two = await start(budget=BUDGET, notes=slowly), await start(budget=BUDGET, notes=slowly)
    await talk(one, *FOUR)
    await one.notes.gate("notes").reached.wait()
    handle = await two.send("say ok")
    await two.notes.gate("notes").reached.wait()
    for node in (one, two):
        node.notes.gate("notes").opened.set()
    await handle.result()
    await asyncio.gather(one.summarized(), two.summarized())
    first, second = await tail(one), await tail(two)
    assert first == second
    assert "ALPHA-1" in await summary_text(two)
    assert "ALPHA-1" in two.sent()[0]


@pytest.mark.parametrize("backend", ["sqlite", "postgres", "mysql"], indirect=True)
async def test_a_summary_that_died_with_its_replica_is_made_by_the_next(start: StartNode) -> None:
    one, two = await start(budget=BUDGET, notes=slowly), await start(budget=BUDGET)
    await talk(one, *THREE)
    await one.notes.gate("notes").reached.wait()
    one.crash()
    await two.ask("say ok")
    await two.summarized()
    assert "ALPHA-1" in await summary_text(two)
