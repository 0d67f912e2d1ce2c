"""Summaries beside the messages that they cover: kept once, and only for the session they were made of."""

import asyncio
from dataclasses import replace

from hector.domain.ids import SessionKey
from hector.domain.memory import Summary, TailLimit
from hector.domain.messages import File, Text
from hector.domain.summaries import Snapshot
from hector.storage.store import SqlSessionStore
from tests.backends import Backend
from tests.contract.actor import KEY, WINDOW, Actor, history, texts

ALL = TailLimit(1000)


def summary(through_seq: int, text: str = "notes") -> Summary:
    return Summary(through_seq, text, 7)


async def taken(store: SqlSessionStore, key: SessionKey = KEY) -> Snapshot:
    snapshot = await store.snapshot(key, ALL)
    assert snapshot
    return snapshot


async def keep(store: SqlSessionStore, made: Summary, made_from: Summary | None = None) -> bool:
    return await store.add_summary(KEY, (await taken(store)).incarnation, made_from, made)


async def latest(store: SqlSessionStore) -> Summary | None:
    return (await taken(store)).tail.summary


async def test_there_is_no_snapshot_of_no_session(store: SqlSessionStore) -> None:
    assert await store.snapshot(KEY, ALL) is None
    assert (await store.tail(KEY, None, ALL)).messages == ()
    assert not await store.add_summary(KEY, "x", None, summary(1))


async def test_the_next_turn_begins_with_the_latest_summary_and_what_came_after(
    store: SqlSessionStore, one: Actor
) -> None:
    await one.turn("1")
    await one.turn("2")
    text = "'notes' %s \n\U0001f600 " + "é" * 70_000
    assert await keep(store, summary(2, text))
    begun = await one.begin("3")
    assert begun.tail.summary == Summary(2, text, 7)
    assert texts(begun.tail.messages) == ["2", "re: 2"]
    assert [seq for seq, _, _ in await history(store)] == [1, 2, 3, 4, 5], "the messages stay"
    await one.answer(begun)
    assert await keep(store, summary(4, "more"), summary(2))
    begun = await one.begin("4")
    assert begun.tail.summary == Summary(4, "more", 7)
    assert texts(begun.tail.messages) == ["3", "ok"]


async def test_a_message_that_waited_begins_with_the_latest_summary(
    store: SqlSessionStore, one: Actor
) -> None:
    await one.turn("1")
    begun = await one.begin("2")
    await one.wait("3")
    assert await keep(store, summary(2))
    await one.answer(begun)
    taken_over = await one.must_take()
    assert taken_over.tail.summary == summary(2)
    assert texts(taken_over.tail.messages) == ["2", "ok"]


async def test_what_a_running_turn_says_is_not_in_a_snapshot(store: SqlSessionStore, one: Actor) -> None:
    await one.turn("1")
    begun = await one.begin("2")
    snapshot = await taken(store)
    assert texts(snapshot.tail.messages) == ["1", "re: 1"]
    await one.answer(begun)
    assert texts((await taken(store)).tail.messages) == ["1", "re: 1", "2", "ok"]


async def test_a_turn_that_begins_meanwhile_loses_nothing(store: SqlSessionStore, one: Actor) -> None:
    await one.turn("1")
    snapshot = await taken(store)
    begun = await one.begin("2")
    assert await store.add_summary(KEY, snapshot.incarnation, None, summary(2))
    await one.answer(begun, "two")
    await one.turn("3")
    assert texts((await taken(store)).tail.messages) == ["2", "two", "3", "re: 3"]


async def test_only_a_summary_made_from_the_latest_is_kept(store: SqlSessionStore, one: Actor) -> None:
    for text in "123":
        await one.turn(text)
    assert await keep(store, summary(2))
    assert not await keep(store, summary(4, "made of no summary"))
    assert await latest(store) == summary(2)
    assert await keep(store, summary(4), summary(2))
    assert not await keep(store, summary(6, "made of the first"), summary(2))
    assert await latest(store) == summary(4)


async def test_of_two_at_once_one_is_kept(store: SqlSessionStore, one: Actor) -> None:
    for text in "123":
        await one.turn(text)
    kept = await asyncio.gather(*(keep(store, summary(2 * n, f"notes {n}")) for n in (1, 2, 3)))
    assert kept.count(True) == 1
    number = kept.index(True) + 1
    assert await latest(store) == summary(2 * number, f"notes {number}")


async def test_a_summary_that_is_kept_again_is_kept_once(store: SqlSessionStore, one: Actor) -> None:
    """As after a commit whose answer was lost."""
    await one.turn("1")
    assert await keep(store, summary(2))
    assert await keep(store, summary(2)), "the answer is the same"
    assert not await keep(store, summary(2, "another")), "which this one is not"
    assert await latest(store) == summary(2)


async def test_what_not_every_database_stores_is_replaced(store: SqlSessionStore, one: Actor) -> None:
    await one.turn("1")
    assert await keep(store, summary(2, "a\0b\ud83dc"))
    assert await keep(store, summary(2, "a\0b\ud83dc")), "and known again"
    assert await latest(store) == summary(2, "a\ufffdb\ufffdc")


async def test_a_session_that_was_made_again_gets_no_summary_of_its_former_life(
    store: SqlSessionStore, one: Actor
) -> None:
    await one.turn("1")
    former = await taken(store)
    assert await store.delete(KEY)
    assert not await store.add_summary(KEY, former.incarnation, None, summary(2)), "there is none"
    await one.turn("again")
    assert not await store.add_summary(KEY, former.incarnation, None, summary(2))
    begun = await one.begin("and again")
    assert begun.tail.summary is None
    assert texts(begun.tail.messages) == ["again", "re: again"]
    assert await keep(store, summary(2))
    assert not await store.add_summary(KEY, former.incarnation, None, summary(2)), "not even the same"


async def test_a_deleted_session_leaves_no_summary(store: SqlSessionStore, one: Actor) -> None:
    await one.turn("1")
    assert await keep(store, summary(2))
    assert await store.delete(KEY)
    await one.turn("again")
    assert await latest(store) is None
    assert (await store.tail(KEY, None, ALL)).summary is None


async def test_no_summary_covers_what_there_is_not(store: SqlSessionStore, one: Actor) -> None:
    await one.turn("1")
    assert not await keep(store, summary(3))
    assert await latest(store) is None


async def test_another_session_of_the_same_name_keeps_its_own(store: SqlSessionStore, one: Actor) -> None:
    other = replace(KEY, user_id="other")
    await one.turn("1")
    await one.turn("1", key=other)
    assert await keep(store, summary(2))
    assert (await taken(store, other)).tail.summary is None


async def test_a_snapshot_is_bounded_and_has_the_newest(store: SqlSessionStore, one: Actor) -> None:
    for number in range(6):
        await one.turn(str(number))
    snapshot = await store.snapshot(KEY, TailLimit(3))
    assert snapshot
    assert texts(snapshot.tail.messages) == ["re: 4", "5", "re: 5"]


async def test_a_snapshot_does_not_read_files(store: SqlSessionStore, one: Actor) -> None:
    parts = (Text("look"), File("image/png", name="x.png", data=b"x" * 70_000))
    await one.answer(await one.begin(parts=parts))
    (asked, _) = (await taken(store)).tail.messages
    (_, file) = asked.message.parts
    assert isinstance(file, File)
    assert (file.name, file.data) == ("x.png", None)


async def test_the_tail_before_a_turn_is_what_the_turn_begins_with(
    store: SqlSessionStore, one: Actor
) -> None:
    await one.turn("1")
    await one.turn("2")
    assert await keep(store, summary(2))
    begun = await one.begin("3")
    assert begun.tail == await store.tail(KEY, begun.lease.run_seq, WINDOW)
    await one.answer(begun)
    whole = await store.tail(KEY, None, WINDOW)
    assert whole.summary == summary(2)
    assert texts(whole.messages) == ["2", "re: 2", "3", "ok"]


async def test_a_summary_outlives_the_process(backend: Backend, store: SqlSessionStore, one: Actor) -> None:
    await one.turn("1")
    assert await keep(store, summary(2))
    if backend.name == "memory":
        return  # which dies with its process
    again = await backend.open()
    try:
        assert (await taken(again)).tail.summary == summary(2)
    finally:
        await again.close()
