"""Signals between processes: on PostgreSQL at once, elsewhere not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from hector.storage.opening import open_server
from hector.storage.postgres.signals import _channel
from hector.storage.settings import Tls
from hector.storage.store import SqlSessionStore
from tests.contract.actor import Actor
from tests.databases.proxy import proxy_to
from tests.servers import Database

Open: TypeAlias = Callable[..., Awaitable[SqlSessionStore]]


@pytest.fixture
async def opening(postgres_db: Database) -> AsyncIterator[Open]:
    stores: list[SqlSessionStore] = []

    async def opened(db: Database = postgres_db, **settings: Any) -> SqlSessionStore:
        stores.append(await open_server(db.driver, db.settings(**settings)))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


class Ear:
    """What one process hears."""

    def __init__(self, store: SqlSessionStore) -> None:
        self.store = store
        self.heard: list[str | None] = []
        self._more = asyncio.Event()
        store.signals.listen(self._hear)

    def _hear(self, topic: str | None) -> None:
        self.heard.append(topic)
        self._more.set()

    async def until(self, topic: str | None, *, times: int = 1) -> None:
        while self.heard.count(topic) < times:
            self._more.clear()
            await self._more.wait()


async def listening(store: SqlSessionStore) -> Ear:
    ear = Ear(store)
    await ear.until(None)
    assert store.signals.prompt
    return ear


async def test_others_are_told_and_oneself_is_not(opening: Open) -> None:
    one, two = await listening(await opening()), await listening(await opening())
    one.store.signals.tell("from one")
    two.store.signals.tell("from two")
    await two.until("from one")
    await one.until("from two")
    assert (one.heard, two.heard) == ([None, "from two"], [None, "from one"])


async def test_what_is_told_at_once_is_sent_at_once_and_each_topic_once(
    opening: Open, postgres_db: Database
) -> None:
    ear = await listening(await opening())
    async with proxy_to(postgres_db.host, postgres_db.port) as proxy:
        store = await opening(port=proxy.port, tls=Tls("disable"))
        teller = await listening(store)
        store.signals.tell("warm")  # the statement is prepared
        await ear.until("warm")
        proxy.arm()
        for topic in ("a", "b", "a", "c"):
            store.signals.tell(topic)
        await ear.until("c")
        assert proxy.requests == 1
    assert ear.heard == [None, "warm", "a", "b", "c"]
    assert teller.heard[0] is None


async def test_one_who_does_not_listen_can_tell(opening: Open) -> None:
    ear, store = await listening(await opening()), await opening()
    store.signals.tell("t")
    await ear.until("t")


async def test_what_is_told_just_before_the_end_is_sent(opening: Open) -> None:
    ear, store = await listening(await opening()), await opening()
    store.signals.tell("bye")
    await store.close()
    await ear.until("bye")


async def test_a_lost_connection_is_made_again_unasked_and_something_may_have_been_missed(
    opening: Open, postgres_db: Database
) -> None:
    one, two = await listening(await opening()), await listening(await opening())
    kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{postgres_db.user}'"
    await postgres_db.run(kill, admin=True)
    await one.until(None, times=2)
    await two.until(None, times=2)
    one.store.signals.tell("again")
    await two.until("again")


async def test_while_the_connection_is_gone_one_must_poll(opening: Open, postgres_db: Database) -> None:
    async with proxy_to(postgres_db.host, postgres_db.port) as proxy:
        store = await opening(port=proxy.port, tls=Tls("disable"))
        ear = await listening(store)
        proxy.refuses = True
        proxy.cut()
        while store.signals.prompt:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        store.signals.tell("lost")  # without a word
        proxy.refuses = False
        await ear.until(None, times=2)
        assert store.signals.prompt


async def test_the_connection_of_the_signals_is_the_one_that_beats(
    opening: Open, postgres_db: Database
) -> None:
    store = await opening(max_conns=1, max_idle=1)
    await listening(store)
    one = await Actor(store).join()
    await store.beat(one.id)
    store.signals.tell("t")
    assert (await store.replicas())[0].lock
    count = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{postgres_db.user}'"
    assert await postgres_db.run(count, admin=True) == [(2,)], "it, and that of the pool"


async def test_two_hectors_in_one_database_do_not_wake_one_another(
    opening: Open, postgres_db: Database
) -> None:
    here, there = await listening(await opening()), await listening(await opening(schema="Other Schema"))
    teller, foreign = await opening(), await opening(schema="Other Schema")
    foreign.signals.tell("theirs")
    await there.until("theirs")
    teller.signals.tell("ours")
    await here.until("ours")
    assert here.heard == [None, "ours"]
    assert there.heard == [None, "theirs"]


@pytest.mark.parametrize("schema", ["public", "s" * 63, 'ü"\N{GRINNING FACE}'])
def test_a_channel_has_a_name_that_the_server_takes(schema: str) -> None:
    assert len(_channel(schema)) < 64
    assert _channel(schema).isidentifier()


async def test_a_topic_may_be_anything_that_fits(opening: Open) -> None:
    one, two = await listening(await opening()), await opening()
    odd = ["'; --", "{a,b}", '"\\', "x" * 200, " "]
    for topic in odd:
        two.signals.tell(topic)
    await one.until(odd[-1])
    assert one.heard == [None, *odd]


async def test_nothing_is_told_inside_a_turns_transaction(opening: Open, postgres_db: Database) -> None:
    """One that notifies takes a lock of the whole server while it commits."""
    store = await opening()
    ear = await listening(store)
    other = await opening()
    one = await Actor(other).join()
    begun = await one.begin()
    other.signals.tell("mine")
    await ear.until("mine")  # though that turn has not ended
    await one.answer(begun)


async def test_through_a_pooler_one_must_poll(opening: Open, pgbouncer_db: Database) -> None:
    store = await opening(pgbouncer_db)
    ear = Ear(store)
    assert store._presence
    attempt = store._presence.connection._attempt
    assert attempt
    await attempt
    store.signals.tell("lost")
    assert not store.signals.prompt
    assert ear.heard == []
    left = await postgres_listeners(pgbouncer_db)
    assert left == []


async def postgres_listeners(db: Database) -> list[tuple[Any, ...]]:
    """The channels that the server's session which we are given listens on."""
    return await replace(db, port=db.port).run("SELECT pg_listening_channels()")


async def test_on_mysql_one_must_poll(mysql_db: Database) -> None:
    store = await open_server("mysql", mysql_db.settings())
    ear = Ear(store)
    store.signals.tell("lost")
    assert not store.signals.prompt
    await store.close()
    assert ear.heard == []
