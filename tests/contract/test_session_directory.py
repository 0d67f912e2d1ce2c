"""The contract of `SessionDirectory`: sessions are listed, read, made and deleted."""

import asyncio
import base64
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import insert

from hector.domain.errors import InvalidError, LeaseLostError
from hector.domain.ids import SessionKey
from hector.domain.messages import File
from hector.domain.push import PushConfig
from hector.domain.sessions import SessionPage
from hector.domain.turns import TurnState
from hector.storage.operations import Statement, execute, now
from hector.storage.store import SqlSessionStore
from hector.storage.tables import metadata
from tests.contract.actor import KEY, Actor, dump, history, said, texts

# --- reading


async def test_a_session_tells_its_length_and_its_times(store: SqlSessionStore, one: Actor) -> None:
    assert await store.session(KEY) is None
    await one.turn()
    made = await store.session(KEY)
    assert made
    assert (made.key, made.messages, made.waiting, made.running_turn_id) == (KEY, 2, 0, None)
    assert made.metadata == {}
    assert made.created_at.tzinfo is UTC
    assert abs(datetime.now(UTC) - made.created_at) < timedelta(minutes=5)
    await one.turn()
    changed = await store.session(KEY)
    assert changed
    assert changed.messages == 4
    assert changed.created_at == made.created_at
    assert changed.updated_at >= made.updated_at


async def test_messages_are_read_in_pages_from_the_newest_back(store: SqlSessionStore, one: Actor) -> None:
    for n in range(5):
        await one.turn(str(n))
    newest = await store.messages(KEY, limit=3)
    assert texts(newest) == ["re: 3", "4", "re: 4"]
    assert all(stored.created_at for stored in newest)
    older = await store.messages(KEY, before=newest[0].seq, limit=4)
    assert texts(older) == ["re: 1", "2", "re: 2", "3"]
    assert texts(await store.messages(KEY, before=4, limit=100)) == ["0", "re: 0", "1"]
    assert len(await store.messages(KEY)) == 10


@pytest.mark.parametrize("before", [1, 0, -1, -(10**30)])
async def test_there_is_nothing_before_the_first_message(
    store: SqlSessionStore, one: Actor, before: int
) -> None:
    await one.turn()
    assert list(await store.messages(KEY, before=before)) == []


async def test_before_may_be_beyond_the_end(store: SqlSessionStore, one: Actor) -> None:
    await one.turn()
    assert len(await store.messages(KEY, before=10**30)) == 2


async def test_what_waits_is_not_among_the_messages(store: SqlSessionStore, one: Actor) -> None:
    await one.begin("runs")
    await one.wait("waits", "m2")
    assert texts(await store.messages(KEY)) == ["runs"]
    assert [message for _, message in (await store.queue(KEY)).waiting] == ["m2"]


async def test_a_session_that_does_not_exist_is_empty(store: SqlSessionStore) -> None:
    assert list(await store.messages(KEY)) == []
    state = await store.queue(KEY)
    assert (state.running_turn_id, list(state.waiting)) == (None, [])
    assert await store.sessions(agent_id=None, user_id=None, limit=10) == SessionPage([])


@pytest.mark.parametrize("limit", [0, -1, 10_001, 10**30])
async def test_a_page_has_a_size_that_makes_sense(store: SqlSessionStore, limit: int) -> None:
    with pytest.raises(InvalidError, match="limit"):
        await store.sessions(agent_id="a", user_id="u", limit=limit)
    with pytest.raises(InvalidError, match="limit"):
        await store.messages(KEY, limit=limit)


# --- listing


async def _pages(store: SqlSessionStore, size: int, agent: str | None, user: str | None) -> list[SessionKey]:
    keys: list[SessionKey] = []
    cursor = None
    while True:
        page = await store.sessions(agent_id=agent, user_id=user, limit=size, cursor=cursor)
        assert len(page.sessions) <= size
        keys += [session.key for session in page.sessions]
        cursor = page.next_cursor
        if cursor is None:
            return keys


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_pages_hold_each_session_once_newest_first(
    store: SqlSessionStore, one: Actor, size: int
) -> None:
    # Many share a millisecond, so the rest of the order counts.
    keys = [SessionKey(agent, user, f"s{n}") for n in range(3) for user in ("", "u") for agent in ("a", "b")]
    await asyncio.gather(*(store.create(key) for key in keys))
    listed = await _pages(store, size, None, None)
    assert sorted(listed) == sorted(keys)
    sessions = {key: await store.session(key) for key in keys}
    times = [session.updated_at for key in listed if (session := sessions[key])]
    assert times == sorted(times, reverse=True)
    changed = None
    while changed is None or changed.updated_at <= times[0]:
        await one.turn(key=keys[5])
        changed = await store.session(keys[5])
    assert (await _pages(store, size, None, None))[0] == keys[5]


@pytest.mark.parametrize(
    ("agent", "user", "expected"),
    [
        (None, None, {"au1", "au2", "av", "bu", "a"}),
        ("a", None, {"au1", "au2", "av", "a"}),
        ("a", "u", {"au1", "au2"}),
        ("a", "", {"a"}),
        (None, "u", {"au1", "au2", "bu"}),
        ("a", "U", set()),
        ("A", None, set()),
        ("%", "%", set()),
    ],
)
async def test_a_listing_holds_what_it_was_asked_for(
    store: SqlSessionStore, agent: str | None, user: str | None, expected: set[str]
) -> None:
    for key in (
        SessionKey("a", "u", "au1"),
        SessionKey("a", "u", "au2"),
        SessionKey("a", "v", "av"),
        SessionKey("b", "u", "bu"),
        SessionKey("a", "", "a"),
    ):
        await store.create(key)
    for size in (1, 2, 100):
        listed = await _pages(store, size, agent, user)
        assert {key.session_id for key in listed} == expected
        assert len(listed) == len(expected)


async def test_a_change_between_two_pages_neither_repeats_nor_hides_the_others(
    store: SqlSessionStore, one: Actor
) -> None:
    keys = [replace(KEY, session_id=f"s{n}") for n in range(10)]
    for key in keys:
        await store.create(key)
    first = await store.sessions(agent_id="a", user_id="u", limit=4)
    seen = [session.key for session in first.sessions]
    unseen = [key for key in keys if key not in seen]
    await one.turn(key=seen[1])
    await one.turn(key=replace(KEY, session_id="new"))
    await store.delete(seen[3])
    await store.delete(unseen[0])
    rest = []
    cursor = first.next_cursor
    while cursor:
        page = await store.sessions(agent_id="a", user_id="u", limit=2, cursor=cursor)
        rest += [session.key for session in page.sessions]
        cursor = page.next_cursor
    assert sorted(rest) == sorted(unseen[1:])


def _cursor(*place: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


_TIME = "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "!!!!",
        "é",
        "\ud800",
        "AAAA",
        "e30=",
        "bnVsbA==",
        "WzEsMl0=",
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
        "A" * 1_000_000,
        _cursor(_TIME, "a", "u"),
        _cursor(_TIME, "a", "u", "s", "more"),
        _cursor(_TIME, "a", "u", 1),
        _cursor(_TIME, "a", "u", None),
        _cursor(_TIME, "a", "u", ["s"]),
        _cursor(_TIME, "a", "u", {"s": 1}),
        _cursor(_TIME, "a", "u", "\ud800"),
        _cursor(_TIME, "a", "u", "\0"),
        _cursor("yesterday", "a", "u", "s"),
        _cursor(1, "a", "u", "s"),
        _cursor("0001-01-01T00:00:00+23:59", "a", "u", "s"),
        _cursor("9999-12-31T23:59:59-23:59", "a", "u", "s"),
    ],
)
async def test_a_cursor_that_no_listing_gave_is_the_callers_fault(
    store: SqlSessionStore, cursor: str
) -> None:
    await store.create(KEY)
    with pytest.raises(InvalidError) as invalid:
        await store.sessions(agent_id="a", user_id="u", limit=1, cursor=cursor)
    assert invalid.value.field == "cursor"


async def test_a_forged_cursor_shows_nobody_elses_sessions(store: SqlSessionStore) -> None:
    await store.create(SessionKey("a", "v", "secret"))
    await store.create(SessionKey("b", "u", "secret"))
    for cursor in (_cursor("9999-01-01T00:00:00+00:00", "", "", ""), _cursor(_TIME, "' OR 1=1 --", "%", "%")):
        page = await store.sessions(agent_id="a", user_id="u", limit=10, cursor=cursor)
        assert list(page.sessions) == []


# --- making


async def test_an_empty_session_is_made_once(store: SqlSessionStore, one: Actor) -> None:
    made = await asyncio.gather(*(store.create(KEY) for _ in range(5)))
    assert sorted(made) == [False] * 4 + [True]
    session = await store.session(KEY)
    assert session
    assert (session.messages, session.running_turn_id) == (0, None)
    begun = await one.begin()
    assert (begun.new_session, begun.earlier_messages, begun.lease.seq) == (False, 0, 1)
    assert await one.take() is None
    assert await store.create(KEY) is False
    assert len(await history(store)) == 1


# --- deleting


_TABLES_OF_SESSIONS = {
    "sessions",
    "messages",
    "turns",
    "summaries",
    "turn_events",
    "push_configs",
    "push_deliveries",
    "files",
}


async def _insert(store: SqlSessionStore, table: str, key: SessionKey, **values: object) -> None:
    """A row in a table that no operation fills yet."""
    of_session = {"agent_id": key.agent_id, "user_id": key.user_id, "session_id": key.session_id}
    row = {**of_session, "content": "x", "created_at": now(), **values}
    statement = Statement(insert(metadata.tables[table]).values(row))
    await store._driver.write(partial(execute, statement, {}))


async def _fill(store: SqlSessionStore, one: Actor, key: SessionKey) -> None:
    """At least one row in every table of conversations."""
    turn_id = str(uuid.uuid4())
    await _insert(store, "summaries", key, through_seq=1, tokens=1)
    await _insert(store, "turn_events", key, turn_id=turn_id, attempt=1, first_number=1, last_number=2)
    push = PushConfig("p", "https://example.com/", "1.0")
    paused = await one.pause(await one.begin("order", "m1", key=key, push=push))
    await one.fail(await one.begin("fails", "m2", key=key, parts=(File(data=b"x" * 70_000),)))
    running = await one.begin("runs", "m3", key=key)
    await one.wait("waits", "m4", key=key)
    await one.wait("continues", "m5", key=key, resumes=paused.id)
    await store.append(running.lease, [said("half")])


async def test_a_deleted_session_leaves_one_tombstone(store: SqlSessionStore, one: Actor) -> None:
    empty = await dump(store)
    await _fill(store, one, KEY)
    filled = await dump(store)
    assert {name for name, rows in filled.items() if rows} == _TABLES_OF_SESSIONS | {"replicas"}
    incarnation = filled["sessions"][0]
    assert await store.delete(KEY)
    left = await dump(store)
    (tombstone,) = left["tombstones"]
    assert {**left, "tombstones": []} == empty
    assert tombstone[1:4] == ("a", "u", "s")
    assert tombstone[4] in incarnation
    assert await store.session(KEY) is None
    assert not await store.delete(KEY)
    assert len((await dump(store))["tombstones"]) == 1


async def test_deleting_touches_no_other_session(store: SqlSessionStore, one: Actor) -> None:
    others = [
        replace(KEY, session_id="t"),
        replace(KEY, session_id="S"),
        replace(KEY, session_id="s "),
        replace(KEY, user_id="v"),
        replace(KEY, user_id=""),
        replace(KEY, agent_id="b"),
    ]
    for key in others:
        await _fill(store, one, key)
    before = await dump(store)
    await _fill(store, one, KEY)
    await store.delete(KEY)
    assert {**await dump(store), "tombstones": []} == before


async def test_a_deleted_turn_is_found_no_more(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("hello", "m1")
    waiting = await one.wait("later")
    await store.delete(KEY)
    assert await store.turn("a", "u", begun.lease.turn_id) is None
    assert await store.turn("a", "u", waiting.turn_id) is None
    assert await store.cancel(KEY, waiting.turn_id) is None
    assert await one.take() is None
    assert list(await store.open_turns(one.id)) == []
    with pytest.raises(LeaseLostError):
        await one.answer(begun)
    assert await store.session(KEY) is None, "a late answer does not make it again"


async def test_a_deleted_id_starts_again_empty(store: SqlSessionStore, one: Actor) -> None:
    first = await one.turn("hello", "m1")
    old = (await dump(store))["sessions"]
    await store.delete(KEY)
    begun = await one.begin("hello", "m1")
    assert (begun.new_session, begun.lease.seq, begun.tail.messages) == (True, 1, ())
    assert begun.lease.turn_id != first.id
    assert (await one.answer(begun)).state is TurnState.COMPLETED
    assert not {row[6] for row in old} & {row[6] for row in (await dump(store))["sessions"]}, "incarnations"


async def test_a_session_of_many_messages_is_deleted_whole(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin()
    await store.append(begun.lease, [said(str(n)) for n in range(20_000)])
    assert await store.delete(KEY)
    assert (await dump(store))["messages"] == []
