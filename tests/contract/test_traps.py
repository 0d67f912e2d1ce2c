"""What databases are known to do to texts, times and sizes, and must not do here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import bindparam, update

from hector.domain.messages import Data, Text
from hector.domain.turns import Queued, Repeated, TurnState
from hector.storage.operations import Statement, execute
from hector.storage.store import SqlSessionStore
from hector.storage.tables import messages, sessions, turns
from tests.backends import BACKENDS, Backend
from tests.contract.actor import COMPLETED, KEY, Actor, history, said, texts

# Surrogates are no characters; all else is.
_EVERY_CHARACTER = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)


async def test_every_character_of_unicode_comes_back(store: SqlSessionStore, one: Actor) -> None:
    begun = await one.begin("hi")
    await store.end(begun.lease, [said(_EVERY_CHARACTER)], COMPLETED)
    assert texts((await one.begin("next")).tail.messages) == ["hi", _EVERY_CHARACTER]


@pytest.mark.parametrize(
    "text",
    [
        "%s %d %% {0} {name} $1 :name ?",
        "\\ \\' \\\" \\n \\0 \\u0041",
        "'; DROP TABLE messages; --",
        " leading, trailing and non-breaking\u00a0 ",
        "\r\n\t\v\f\x1b\x7f\x85\u2028\ufeff",
        '[{"text": "x"}]',
    ],
)
async def test_a_text_is_data_and_nothing_else(store: SqlSessionStore, one: Actor, text: str) -> None:
    parts = (Text(text, {text: text}), Data({text: [text]}, text))
    await one.begin(parts=parts, message_id=text)
    (stored,) = (await store.messages(KEY))[:1]
    assert stored.message.parts == parts
    assert stored.message_id == text


async def test_a_clock_that_jumps_back_changes_no_order(store: SqlSessionStore, one: Actor) -> None:
    await one.turn("first", "m1")
    await _set_times(store, datetime.now(UTC) + timedelta(days=1))
    await one.turn("second")
    begun = await one.begin("third")
    waiting = await one.wait("fourth")
    await one.answer(begun)
    assert (await one.must_take()).lease.turn_id == waiting.turn_id
    assert [seq for seq, _, _ in await history(store)] == list(range(1, 8))
    tail = (await one.send("first", "m1"),)
    assert isinstance(tail[0], Repeated)
    session = await store.session(KEY)
    assert session
    assert session.updated_at < datetime.now(UTC) + timedelta(hours=1)


async def _set_times(store: SqlSessionStore, moment: datetime) -> None:
    """As if all so far had been written at that time."""
    time = store._driver.time_argument(moment)
    for table, names in (
        (sessions, ("created_at", "updated_at")),
        (messages, ("created_at",)),
        (turns, ("created_at", "started_at", "ended_at")),
    ):
        columns = {name: bindparam("moment", type_=table.c[name].type) for name in names}
        statement = Statement(update(table).values(columns))
        await store._driver.write(partial(execute, statement, {"moment": time}))


@pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)
async def test_a_restart_between_every_two_calls_changes_nothing(backend: Backend) -> None:
    """In memory there is nothing to restart."""
    await backend.clear()

    @asynccontextmanager
    async def restarted() -> AsyncIterator[Actor]:
        store = await backend.open()
        try:
            yield replace(first, store=store)
        finally:
            await store.close()

    store = await backend.open()
    first = await Actor(store).join()
    await store.close()
    async with restarted() as one:
        begun = await one.begin("first", "m1")
    async with restarted() as one:
        lease = await one.store.append(begun.lease, [said("step")])
    async with restarted() as one:
        assert isinstance(await one.send("second", "m2"), Queued)
    async with restarted() as one:
        await one.store.end(lease, [said("answer")], COMPLETED)
    async with restarted() as one:
        taken = await one.must_take()
        assert texts(taken.tail.messages) == ["first", "step", "answer"]
    async with restarted() as one:
        paused = await one.pause(taken)
    async with restarted() as one:
        resumed = await one.begin("this", "m3", resumes=paused.id)
    async with restarted() as one:
        assert (await one.answer(resumed, "done")).state is TurnState.COMPLETED
    async with restarted() as one:
        repeated = await one.send("first", "m1")
        assert isinstance(repeated, Repeated)
        assert repeated.turn.reply == "answer"
        assert [seq for seq, _, _ in await history(one.store)] == list(range(1, 8))
    async with restarted() as one:
        assert await one.store.delete(KEY)
    async with restarted() as one:
        assert await one.store.session(KEY) is None
