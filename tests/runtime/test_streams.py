"""What a turn tells, on the replica that runs it and on others."""

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest

from hector.domain.errors import StoreUnavailableError
from hector.domain.events import (
    EventId,
    TextDelta,
    Told,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnReset,
    TurnStarted,
)
from hector.domain.turns import Recovery, TurnSettings, TurnState
from hector.runtime.housekeeping import forget_events
from hector.tools.function import FunctionTool
from tests.backends import BACKENDS, Backend
from tests.runtime.conftest import Node, StartNode

# A store in memory has one replica.
pytestmark = pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)


async def until(told: AsyncGenerator[Told, None], text: str) -> list[Told]:
    """What is told up to a piece of text that ends so."""
    found = []
    async for each in told:
        found.append(each)
        if isinstance(each.event, TextDelta) and each.event.text.endswith(text):
            return found
    raise AssertionError(f"it ended before {text!r}")


async def rest(told: AsyncGenerator[Told, None]) -> list[Told]:
    return [each async for each in told]


def said(found: list[Told]) -> str:
    """The text of the last attempt that was told."""
    text = ""
    for each in found:
        match each.event:
            case TextDelta(piece):
                text += piece
            case TurnReset():
                text = ""
            case _:
                pass
    return text


def is_gapless(found: list[Told]) -> bool:
    ids = [each.id for each in found if each.id]
    return all(
        later == (earlier.attempt, earlier.number + 1) or later == (earlier.attempt + 1, 0)
        for earlier, later in itertools.pairwise(ids)
    )


async def listen(node: Node, turn_id: str) -> AsyncGenerator[Told, None]:
    return (await node.runtime.listen("a", "u", turn_id)).told()


async def test_another_replica_tells_the_same_while_the_turn_runs(start: StartNode) -> None:
    one, two = await start(), await start()
    handle = await one.send("stream 3 hello\nwait g\nstream 2 world")
    mine, theirs = handle.told(), await listen(two, handle.turn_id)
    early = [await until(told, "lo") for told in (mine, theirs)]
    assert early[0] == early[1]
    one.model.gate("g").opened.set()
    late = [await rest(told) for told in (mine, theirs)]
    for before, after in zip(early, late, strict=True):
        assert said(before + after) == "helloworld"
        assert is_gapless(before + after)
        assert isinstance(after[-1].event, TurnEnded)
        assert after[-1].event.turn.reply == "helloworld"


async def test_a_repeat_at_another_replica_joins_as_a_stream(start: StartNode) -> None:
    one, two = await start(), await start()
    handle = await one.send("stream 3 hello\nwait g\nsay !", message_id="m1")
    joined = await two.send("stream 3 hello\nwait g\nsay !", message_id="m1")
    assert joined.turn_id == handle.turn_id
    told = joined.told()
    assert said(await until(told, "lo")) == "hello"
    one.model.gate("g").opened.set()
    end = (await rest(told))[-1].event
    assert isinstance(end, TurnEnded)
    assert end.turn.reply == "hello!"


async def test_who_listens_is_reset_when_the_turn_is_run_again(start: StartNode) -> None:
    one, two, three = await start(ttl=0.3), await start(ttl=0.3), await start(ttl=0.3)
    handle = await one.send("stream 3 hello\nwait g\nsay !")
    listeners = [await listen(node, handle.turn_id) for node in (two, three)]
    early = [await until(told, "lo") for told in listeners]
    one.crash()
    again = [await until(told, "lo") for told in listeners]
    for node in (two, three):
        node.model.gate("g").opened.set()
    for before, anew, told in zip(early, again, listeners, strict=True):
        assert isinstance(anew[0].event, TurnReset)
        assert said(before + anew) == "hello"
        after = await rest(told)
        assert said(before + anew + after) == "hello!"
        assert is_gapless(before + anew + after)
        end = after[-1].event
        assert isinstance(end, TurnEnded)
        assert (end.turn.reply, end.turn.attempt) == ("hello!", 2)


async def test_a_new_attempt_begins_with_the_steps_that_are_stored(start: StartNode) -> None:
    def clock() -> str:
        """The time."""
        return "noon"

    tools = {"clock": FunctionTool(clock)}
    settings = TurnSettings(recovery=Recovery("resume"))
    one = await start(tools=tools, settings=settings)
    handle = await one.send("stream 2 let me see\ncall clock\nwait g\nsay it is noon")
    await one.model.gate("g").reached.wait()
    told = handle.told()
    before = await until(told, "see")
    one.crash()
    two = await start(tools=tools, settings=settings, opened=["g"])
    after = await rest(await listen(two, handle.turn_id))
    end = after[-1].event
    assert isinstance(end, TurnEnded)
    assert (end.turn.reply, end.turn.attempt) == ("it is noon", 2)
    assert said(before) == "let me see"
    runs = [each for each in after if each.id and each.id.attempt == 2]
    if runs:  # a run of less than a batch keeps no events
        kinds = [type(each.event) for each in runs]
        assert kinds[:4] == [TurnStarted, TextDelta, ToolStarted, ToolFinished]


async def test_a_stream_goes_on_after_the_end_as_long_as_events_are_kept(start: StartNode) -> None:
    one, two = await start(settings=TurnSettings(event_retention=0)), await start()
    handle = await one.send("stream 3 hello\nwait g\nsay !")
    theirs = await listen(two, handle.turn_id)
    await until(theirs, "lo")  # so a batch was kept
    one.model.gate("g").opened.set()
    await rest(theirs)
    kept = await rest(await listen(two, handle.turn_id))
    assert said(kept) == "hello!"
    assert [each.id for each in kept[:-1]] == [EventId(1, number) for number in range(1, len(kept))]
    agent = one.runtime.agents["a"]
    while await one.store.progress("a", "u", handle.turn_id, EventId(1, 0)) and len(kept) > 1:
        await forget_events(agent, one.store)  # until the clock has moved on
        kept = await rest(await listen(two, handle.turn_id))
    end = kept[-1].event
    assert isinstance(end, TurnEnded)
    assert end.turn.reply == "hello!"


async def test_a_short_turn_keeps_no_events(start: StartNode) -> None:
    node = await start()
    turn = await node.ask("stream 3 hello")
    progress = await node.store.progress("a", "u", turn.id, EventId(1, 0))
    assert progress
    assert (progress.events, progress.state) == ([], TurnState.COMPLETED)


async def test_who_listens_elsewhere_is_told_when_this_server_stops(
    start: StartNode, backend: Backend
) -> None:
    one, two = await start(), await start()
    handle = await one.send("wait g\nsay 0")
    listening = await two.runtime.listen("a", "u", handle.turn_id)
    closing = asyncio.create_task(two.runtime.close())
    with pytest.raises(StoreUnavailableError, match="stops"):
        await listening.result()
    await closing
    one.model.gate("g").opened.set()
    assert (await handle.result()).reply == "0"


async def test_a_deleted_session_ends_every_stream(start: StartNode) -> None:
    one, two = await start(), await start()
    handle = await one.send("stream 3 hello\nwait g\nsay !")
    told = await listen(two, handle.turn_id)
    await until(told, "lo")
    await two.runtime.delete_session(handle.key)
    end = (await rest(told))[-1].event
    assert isinstance(end, TurnEnded)
    assert (end.turn.state, end.turn.reason) == (TurnState.CANCELED, "session deleted")
