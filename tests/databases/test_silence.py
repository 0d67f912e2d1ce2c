"""A server that hangs: connections stay open, and nothing is answered."""

import asyncio

import pytest

from hector.domain.errors import OutcomeUnknownError, StorageError, StoreUnavailableError
from hector.storage.opening import open_server
from hector.storage.settings import Tls
from tests.contract.actor import Actor, history
from tests.servers import DatabaseServer

pytestmark = [pytest.mark.timeout(90), pytest.mark.long]


async def test_callers_of_a_server_that_hangs_are_told_and_it_is_used_again(
    own_server: DatabaseServer,
) -> None:
    db = await own_server.create_database()
    settings = db.settings(
        tls=Tls("disable"), statement_timeout=1, connect_timeout=1, max_conns=2, max_idle=2
    )
    store = await open_server(db.driver, settings)
    one = await Actor(store).join()
    begun = await one.begin("first", "m1")
    await own_server.freeze()
    told = await asyncio.gather(
        one.answer(begun, "answer"),
        store.sessions(agent_id="a", user_id=None, limit=10),
        return_exceptions=True,
    )
    await own_server.thaw()
    assert isinstance(told[0], OutcomeUnknownError | StoreUnavailableError)
    assert isinstance(told[1], StoreUnavailableError)
    # As callers are told that they may.
    outcome: object = told[0]
    while isinstance(outcome, BaseException):
        assert isinstance(outcome, StorageError)
        assert outcome.retryable
        (outcome,) = await asyncio.gather(one.answer(begun, "answer"), return_exceptions=True)
    assert [text for _, text, _ in await history(store)] == ["first", "answer"]
    await store.close()
