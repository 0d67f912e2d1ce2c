"""What a running turn tells, as it is kept for streams that are broken off."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from hector.domain.errors import LeaseLostError
from hector.domain.events import (
    EventId,
    RunEvent,
    Summarizing,
    TextDelta,
    ThinkingDelta,
    Told,
    ToolFinished,
    ToolStarted,
    TurnStarted,
)
from hector.domain.messages import ToolCall, ToolResult
from hector.domain.turns import Begun, Lease, TurnState
from hector.storage.store import SqlSessionStore
from tests.contract.actor import KEY, Actor, dump

START = EventId(1, 0)


def told(lease: Lease, first: int, *events: RunEvent) -> list[Told]:
    return [Told(event, EventId(lease.attempt, number)) for number, event in enumerate(events, first)]


def words(lease: Lease, first: int, *texts: str) -> list[Told]:
    return told(lease, first, *map(TextDelta, texts))


async def kept(store: SqlSessionStore, begun: Begun, after: EventId = START) -> Sequence[Told]:
    progress = await store.progress("a", "u", begun.lease.turn_id, after)
    assert progress
    return progress.events


async def test_events_are_kept_in_their_order_with_their_numbers(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin()
    first = told(
        begun.lease,
        1,
        TurnStarted(begun.lease.turn_id),
        Summarizing(),
        ThinkingDelta("hm"),
        TextDelta("\0 \ud83d 'x' \U0001f600"),
    )
    second = told(
        begun.lease,
        5,
        ToolStarted(ToolCall("c", "look", "{}", idempotent=True)),
        ToolFinished(ToolResult("c", "look", "seen", is_error=True)),
    )
    await store.add_events(begun.lease, first)
    await store.add_events(begun.lease, second)
    progress = await store.progress("a", "u", begun.lease.turn_id, START)
    assert progress
    assert (progress.state, progress.attempt, progress.turn) == (TurnState.WORKING, 1, None)
    assert list(progress.events) == [*first, *second]
    assert list(await kept(store, begun, EventId(1, 3))) == [first[3], *second], "from the middle of a batch"
    assert list(await kept(store, begun, EventId(1, 9))) == []


async def test_events_that_are_kept_twice_are_kept_once(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin()
    await store.add_events(begun.lease, words(begun.lease, 1, "a", "b"))
    await store.add_events(begun.lease, words(begun.lease, 1, "a", "b"))
    await store.add_events(begun.lease, words(begun.lease, 1, "a", "b", "c"))
    assert list(await kept(store, begun)) == words(begun.lease, 1, "a", "b", "c")


async def test_each_attempt_has_events_of_its_own(store: SqlSessionStore, one: Actor, two: Actor) -> None:
    begun = await one.begin()
    await store.add_events(begun.lease, words(begun.lease, 1, "lost"))
    await one.die()
    again = await two.must_take()
    with pytest.raises(LeaseLostError):
        await store.add_events(begun.lease, words(begun.lease, 2, "late"))
    assert list(await kept(store, again, EventId(1, 1))) == []
    await store.add_events(again.lease, words(again.lease, 1, "new"))
    for after in (EventId(1, 1), EventId(2, 0)):
        assert list(await kept(store, again, after)) == words(again.lease, 1, "new")


async def test_progress_brings_the_turn_once_it_does_not_run(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("order")
    waiting = await one.wait("next")
    await store.add_events(begun.lease, words(begun.lease, 1, "which?"))
    paused = await one.pause(begun)
    progress = await store.progress("a", "u", paused.id, START)
    assert progress
    assert progress.turn
    assert (progress.state, progress.turn.state) == (TurnState.INPUT_REQUIRED, TurnState.INPUT_REQUIRED)
    assert len(progress.turn.messages) == 2
    assert list(progress.events) == words(begun.lease, 1, "which?")
    queued = await store.progress("a", "u", waiting.turn_id, START)
    assert queued
    assert (queued.state, queued.events) == (TurnState.SUBMITTED, [])
    for names in (("b", "u"), ("a", "v")):
        assert await store.progress(*names, paused.id, START) is None


async def test_progress_of_a_message_is_that_of_its_own_run(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("order", "m1")
    paused = await one.pause(begun)
    answer = await one.begin("this", "m2", resumes=paused.id)
    await store.add_events(answer.lease, words(answer.lease, 1, "on"))
    for end in (False, True):
        if end:
            await one.answer(answer, "done")
        first = await store.progress("a", "u", paused.id, START, "m1")
        assert first
        assert first.turn
        assert (first.turn.state, first.turn.reply) == (TurnState.INPUT_REQUIRED, "which?")
        assert (first.state, first.events, first.attempt) == (first.turn.state, [], START.attempt)
        second = await store.progress("a", "u", paused.id, START, "m2")
        assert second == await store.progress("a", "u", paused.id, START)
        assert second
        assert second.state is (TurnState.COMPLETED if end else TurnState.WORKING)
        assert second.events


async def test_events_are_forgotten_some_time_after_the_end(store: SqlSessionStore, one: Actor) -> None:
    running = await one.begin()
    ended = await one.begin(key=replace(KEY, session_id="t"))
    for begun in (running, ended):
        await store.add_events(begun.lease, words(begun.lease, 1, "x"))
    await one.answer(ended)
    assert await store.forget_events("a", 3600) == 0
    assert await store.forget_events("b", -1) == 0, "another agent's"
    assert await store.forget_events("a", -1) == 1
    assert list(await kept(store, running)) == words(running.lease, 1, "x")
    assert list(await kept(store, ended)) == []


async def test_deleting_a_session_deletes_its_events(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin()
    await store.add_events(begun.lease, words(begun.lease, 1, "x"))
    await store.delete(KEY)
    with pytest.raises(LeaseLostError):
        await store.add_events(begun.lease, words(begun.lease, 2, "y"))
    assert not (await dump(store))["turn_events"]


@pytest.mark.parametrize("text", ["1.5", "12.0"])
def test_an_event_id_is_read_as_it_is_written(text: str) -> None:
    assert str(EventId.parse(text)) == text


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "-1.2", "1.2.3", "a.b", "1.²", "1.1" + "0" * 50])
def test_what_is_no_event_id_is_none(text: str) -> None:
    assert EventId.parse(text) is None
