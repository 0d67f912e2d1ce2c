"""Callers that leave at each round trip of each operation: it is done, and nothing is left open."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from hector.storage.opening import open_server
from hector.storage.server.driver import ServerDriver
from hector.storage.settings import Tls
from tests.contract.actor import Actor, history
from tests.databases.proxy import proxy_to
from tests.databases.test_lost_answers import MOST_ROUND_TRIPS, OPERATIONS, Stage
from tests.servers import Database


@pytest.fixture
async def stage(server_db: Database) -> AsyncIterator[Stage]:
    """With one connection, so that whoever comes next gets the one that was left."""
    async with proxy_to(server_db.host, server_db.port) as proxy:
        settings = server_db.settings(port=proxy.port, max_conns=1, max_idle=1, tls=Tls("disable"))
        store = await open_server(server_db.driver, settings)
        yield Stage(proxy, store, await Actor(store).join(), await Actor(store).join())
        await store.close()


async def _reached(stage: Stage, number: int) -> None:
    while stage.proxy.requests <= number:
        stage.proxy.seen.clear()
        await stage.proxy.seen.wait()


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_whose_caller_leaves_is_done_and_leaves_nothing_open(
    stage: Stage, name: str
) -> None:
    prepare, act, _ = OPERATIONS[name]
    driver = stage.store._driver
    assert isinstance(driver, ServerDriver)
    for number in range(MOST_ROUND_TRIPS):
        here = stage.at(number)
        prepared = await prepare(here)
        stage.proxy.arm()
        acting = asyncio.ensure_future(act(here, prepared))
        reached = asyncio.ensure_future(_reached(stage, number))
        await asyncio.wait((acting, reached), return_when=asyncio.FIRST_COMPLETED)
        left = not acting.done()
        acting.cancel()
        reached.cancel()
        await asyncio.gather(acting, reached, return_exceptions=True)
        if driver._finishing:
            await asyncio.wait(driver._finishing)
        await stage.one.turn("next", key=stage.at(1000 + number).key)
        if name in ("end", "fail", "cancel"):
            session = await stage.store.session(here.key)
            assert session
            assert session.running_turn_id is None
            assert len(await history(stage.store, here.key)) == session.messages
        if name == "delete":
            assert await stage.store.session(here.key) is None
        if not left:
            assert number >= 1, "somebody left at a round trip"
            return
    pytest.fail(f"it takes more than {MOST_ROUND_TRIPS} round trips")
