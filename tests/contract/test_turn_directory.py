"""The contract of `TurnDirectory`: turns are listed in the order in which they came into their states."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import bindparam, update

from hector.domain.errors import InvalidError
from hector.domain.ids import SessionKey
from hector.domain.messages import File, Text
from hector.domain.turns import Reason, Turn, TurnFilter, TurnPage, TurnPlace, TurnState, Wanted
from hector.storage.operations import Statement, execute
from hector.storage.store import SqlSessionStore
from hector.storage.tables import turns
from tests.contract.actor import KEY, Actor, CountingDriver, call, texts

ALL = TurnFilter()
OTHER = replace(KEY, session_id="t")


async def listed(store: SqlSessionStore, which: TurnFilter = ALL, **rest: Any) -> list[Turn]:
    """All pages of the user's together, each at most `limit` long, and the total told on each."""
    return await _from(store, None, which, **rest)


async def _from(
    store: SqlSessionStore, after: TurnPlace | None, which: TurnFilter = ALL, *, limit: int = 100, **rest: Any
) -> list[Turn]:
    found: list[Turn] = []
    while True:
        page = await store.turns("a", "u", which, limit=limit, after=after, **rest)
        assert len(page.turns) == limit or (len(page.turns) < limit and page.next is None)
        found += page.turns
        after = page.next
        if after is None:
            return found


def ids(found: TurnPage | Sequence[Turn]) -> list[str]:
    return [turn.id for turn in (found.turns if isinstance(found, TurnPage) else found)]


def changed_at(turn: Turn) -> datetime:
    at = turn.ended_at or turn.started_at or turn.created_at
    assert at
    return at


async def turns_in_every_state(one: Actor) -> dict[str, str]:
    """Their ids by what they are."""
    made = {"completed": (await one.turn()).id}
    failed = await one.fail(await one.begin("fails", "f"))
    made |= {"failed": failed.id, "tried again": (await one.turn("fails", "f")).id}
    made["asks"] = (await one.pause(await one.begin("order"))).id
    asked = await one.pause(await one.begin("which way?"))
    answering = await one.begin("left", "left", resumes=asked.id)
    made["asked twice"] = (await one.pause(answering, "how far?")).id
    refused = await one.pause(await one.begin("a meal", "m1"))
    await one.fail(await one.begin("red", "m2", resumes=refused.id))
    made |= {
        "answered in vain": refused.id,
        "answered again": (await one.turn("red", "m2", resumes=refused.id)).id,
    }
    big = await one.begin("big", parts=(Text("see"), File(data=b"x" * 70_000)))
    made["with a file"] = (await one.answer(big)).id
    running = await one.begin("runs")
    made["runs"] = running.lease.turn_id
    await one.store.append(running.lease, [call("look")])
    waiting = await one.wait("waits", "w")
    left = await one.wait("leaves", "l")
    made |= {"waits": waiting.turn_id, "left": left.turn_id}
    await one.store.cancel(KEY, left.turn_id)
    await one.wait("and back", resumes=made["asked twice"])
    await one.wait("no, wait", "no", resumes=made["asked twice"])
    await one.wait("and forth", resumes=made["asked twice"])
    await one.store.withdraw(KEY, made["asked twice"], "no", Reason.CANCELED)
    return made


# --- one page


async def test_a_turn_that_is_listed_is_as_it_is_read_alone(store: SqlSessionStore, one: Actor) -> None:
    made = await turns_in_every_state(one)
    found = {turn.id: turn for turn in await listed(store, wanted="all")}
    assert sorted(found) == sorted(made.values())
    for what, turn_id in made.items():
        assert found[turn_id] == await store.turn("a", "u", turn_id), what
    assert texts(found[made["asked twice"]].messages) == [
        "which way?",
        "which?",
        "left",
        "how far?",
        "and back",
        "and forth",
    ]
    assert found[made["failed"]].superseded


async def test_replies_and_questions_are_read_without_the_rest(store: SqlSessionStore, one: Actor) -> None:
    made = await turns_in_every_state(one)
    for turn in await listed(store, wanted="replies"):
        alone = await store.turn("a", "u", turn.id)
        assert alone
        runs = turn.state in (TurnState.WORKING, TurnState.SUBMITTED)
        last = [stored for stored in alone.messages if stored.seq is not None][-1:]
        assert turn == replace(alone, messages=() if runs else tuple(last))
    for turn in await listed(store):
        asks = turn.id in (made["asks"], made["asked twice"])
        assert bool(turn.messages) == asks == turn.state.paused
        assert turn.reply == {made["asks"]: "which?", made["asked twice"]: "how far?"}.get(turn.id, "")


async def test_a_turn_that_paused_many_times_is_listed_whole(store: SqlSessionStore, one: Actor) -> None:
    paused = await one.pause(await one.begin())
    for n in range(70):
        await one.pause(await one.begin(str(n), resumes=paused.id))
    await one.turn("another", key=OTHER)
    found = {turn.id: turn for turn in await listed(store, wanted="all")}
    assert found[paused.id] == await store.turn("a", "u", paused.id)
    assert len(found[paused.id].messages) == 142


async def test_nothing_is_a_page_too(store: SqlSessionStore) -> None:
    for which in (ALL, TurnFilter("s"), TurnFilter(state=TurnState.WORKING)):
        assert await store.turns("a", "u", which, limit=10) == TurnPage([], 0)


@pytest.mark.parametrize("limit", [0, -1, 10_001])
async def test_a_page_of_turns_has_a_size_that_makes_sense(store: SqlSessionStore, limit: int) -> None:
    with pytest.raises(InvalidError, match="limit"):
        await store.turns("a", "u", ALL, limit=limit)


async def test_a_page_reads_what_it_shows_in_two_statements(store: SqlSessionStore, one: Actor) -> None:
    counting = CountingDriver(store._driver)
    counted = SqlSessionStore(counting)
    for n in range(20):
        await one.turn(key=replace(KEY, session_id=str(n % 3)))
    await one.pause(await one.begin(key=replace(KEY, session_id="1")))
    running = await one.begin(key=replace(KEY, session_id="0"))
    await one.wait(key=running.lease.key)
    kinds: Sequence[tuple[Wanted, int, int]] = (("questions", 2, 1), ("replies", 2, 18), ("all", 3, 38))
    for wanted, statements, messages in kinds:
        counting.statements = counting.rows = 0
        page = await counted.turns("a", "u", ALL, limit=20, wanted=wanted)
        assert (counting.statements, counting.rows) == (statements, 21 + messages)
        assert sum(len(turn.messages) for turn in page.turns) == messages


# --- order and pages


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_pages_hold_each_turn_once_the_last_changed_first(
    store: SqlSessionStore, one: Actor, size: int
) -> None:
    made = await turns_in_every_state(one)
    found = await listed(store, limit=size)
    assert sorted(ids(found)) == sorted(made.values())
    order = [(changed_at(turn), turn.id) for turn in found]
    assert order == sorted(order, reverse=True)
    assert (await store.turns("a", "u", ALL, limit=size)).total == len(made)
    assert (await store.turns("a", "u", ALL, limit=len(made))).next is None


@pytest.mark.parametrize("session", [None, "s"])
async def test_turns_of_one_moment_come_by_their_ids(
    store: SqlSessionStore, one: Actor, session: str | None
) -> None:
    made = sorted([(await one.turn()).id for _ in range(7)], reverse=True)
    moment = store._driver.time_argument(datetime(2026, 1, 1, tzinfo=UTC))
    time = bindparam("moment", type_=turns.c.created_at.type)
    at_once = Statement(update(turns).values(created_at=time, started_at=time, ended_at=time))
    await store._driver.write(partial(execute, at_once, {"moment": moment}))
    for size in (1, 2, 3, 100):
        assert ids(await listed(store, TurnFilter(session), limit=size)) == made


async def test_changes_between_two_pages_neither_repeat_nor_hide_the_others(
    store: SqlSessionStore, one: Actor
) -> None:
    keys = [replace(KEY, session_id=f"s{n}") for n in range(12)]
    running = [await one.begin(key=key) for key in keys]
    of = {begun.lease.turn_id: begun for begun in running}
    before = ids(await listed(store))
    first = await store.turns("a", "u", ALL, limit=4)
    seen, (*stays, deleted, ended) = before[:4], before[4:]
    assert ids(first) == seen
    await _later_than(store, changed_at(first.turns[0]))
    await one.answer(of[ended])
    await one.pause(of[seen[0]])
    await store.delete(of[deleted].lease.key)
    await store.delete(of[seen[3]].lease.key)
    await one.begin(key=OTHER)
    assert first.next
    assert ids(await _from(store, first.next, limit=2)) == stays
    again = ids(await listed(store, limit=3))
    assert len(again) == len(set(again)) == 11
    assert set(again[:3]) == {ended, seen[0], *(set(again) - set(before))}


async def _later_than(store: SqlSessionStore, moment: datetime) -> None:
    """Until the store's clock has gone on from there."""
    while True:
        probe = await Actor(store).turn(key=SessionKey("clock", "", str(moment)))
        stored = await store.turn("clock", "", probe.id)
        assert stored
        if stored.created_at and stored.created_at > moment:
            return


async def test_pages_are_read_while_turns_come_and_go(store: SqlSessionStore, one: Actor) -> None:
    keys = [replace(KEY, session_id=f"s{n}") for n in range(6)]

    async def talk(key: SessionKey) -> None:
        for n in range(6):
            begun = await one.begin(key=key)
            await (one.pause(begun) if n % 2 else one.answer(begun))
        await store.delete(key)

    talking = asyncio.gather(*map(talk, keys))
    while not talking.done():
        place: TurnPlace | None = None
        seen: list[str] = []
        while True:
            await asyncio.sleep(0)  # in memory nothing else lets others run
            page = await store.turns("a", "u", ALL, limit=3, after=place, wanted="all")
            seen += ids(page)
            order = [(changed_at(turn), turn.id) for turn in page.turns]
            assert order == sorted(order, reverse=True)
            assert page.total >= len(page.turns)
            place = page.next
            if place is None:
                break
        assert len(seen) == len(set(seen))
    await talking
    assert await store.turns("a", "u", ALL, limit=3) == TurnPage([], 0)


@pytest.mark.parametrize("year", [1, 9999])
async def test_a_place_may_be_beyond_either_end(store: SqlSessionStore, one: Actor, year: int) -> None:
    turn = await one.turn()
    for which in (ALL, TurnFilter("s")):
        page = await store.turns(
            "a", "u", which, limit=1, after=TurnPlace(datetime(year, 1, 1, tzinfo=UTC), "x")
        )
        assert (ids(page), page.total) == ([turn.id] if year == 9999 else [], 1)


# --- filters


async def test_a_listing_holds_the_turns_that_it_was_asked_for(store: SqlSessionStore, one: Actor) -> None:
    made = await turns_in_every_state(one)
    other = {
        "other": (await one.turn(key=OTHER)).id,
        "other runs": (await one.begin(key=OTHER)).lease.turn_id,
    }
    for which, expected in (
        (TurnFilter(), {*made, *other}),
        (TurnFilter("s"), {*made}),
        (TurnFilter("t"), {*other}),
        (TurnFilter("S"), set()),
        (TurnFilter("%"), set()),
        (TurnFilter(state=TurnState.WORKING), {"runs", "other runs"}),
        (TurnFilter("t", TurnState.WORKING), {"other runs"}),
        (TurnFilter(state=TurnState.FAILED), {"failed", "answered in vain"}),
        (TurnFilter(state=TurnState.INPUT_REQUIRED), {"asks", "asked twice"}),
        (TurnFilter(state=TurnState.SUBMITTED), {"waits"}),
        (TurnFilter(state=TurnState.CANCELED), {"left"}),
        (TurnFilter(state=TurnState.REJECTED), set()),
    ):
        for limit in (1, 100):
            found = await listed(store, which, limit=limit)
            assert {name for name, turn_id in (made | other).items() if turn_id in ids(found)} == expected
            assert len(found) == len(expected)
        assert (await store.turns("a", "u", which, limit=1)).total == len(expected)


@pytest.mark.parametrize("session", [None, "s"])
async def test_turns_since_a_moment_include_those_of_that_moment(
    store: SqlSessionStore, one: Actor, session: str | None
) -> None:
    for _ in range(3):
        await one.turn()
    every = await listed(store)
    second = changed_at(every[1])
    expected = [turn.id for turn in every if changed_at(turn) >= second]
    which = TurnFilter(session, changed_since=second)
    assert ids(await listed(store, which, limit=1)) == expected
    assert (await store.turns("a", "u", which, limit=1)).total == len(expected)
    assert ids(await listed(store, replace(which, state=TurnState.COMPLETED))) == expected
    assert await listed(store, replace(which, state=TurnState.FAILED)) == []
    later = changed_at(every[0]) + timedelta(milliseconds=1)
    assert await listed(store, replace(which, changed_since=later)) == []
    assert len(await listed(store, replace(which, changed_since=datetime(1970, 1, 1, tzinfo=UTC)))) == 3
    assert await listed(store, replace(which, changed_since=datetime.max.replace(tzinfo=UTC))) == []


async def test_nobody_elses_turns_are_listed(store: SqlSessionStore, one: Actor) -> None:
    mine = await one.turn()
    for key in (
        replace(KEY, user_id="v"),
        replace(KEY, user_id=""),
        replace(KEY, user_id="U"),
        replace(KEY, agent_id="b"),
    ):
        await one.turn("a secret", key=key)
        await one.pause(await one.begin("another", key=key))
    for which in (ALL, TurnFilter("s"), TurnFilter(state=TurnState.COMPLETED)):
        page = await store.turns("a", "u", which, limit=10, wanted="all")
        assert (ids(page), page.total) == ([mine.id], 1)
        assert texts(page.turns[0].messages) == ["hi", "re: hi"]


async def test_a_deleted_sessions_turns_are_gone_from_listings(store: SqlSessionStore, one: Actor) -> None:
    await turns_in_every_state(one)
    kept = await one.turn(key=OTHER)
    await store.delete(KEY)
    page = await store.turns("a", "u", ALL, limit=10, wanted="all")
    assert (ids(page), page.total, page.next) == ([kept.id], 1, None)


async def test_a_turn_that_nobody_ran_is_listed_as_it_was_ended(store: SqlSessionStore, one: Actor) -> None:
    two = await Actor(store).join()
    begun = await one.begin()
    await one.die()
    ended = await two.end_orphan()
    (turn,) = await listed(store, wanted="all")
    assert turn.id == ended == begun.lease.turn_id
    assert (turn.state, turn.reason) == (TurnState.FAILED, Reason.CRASHED)
