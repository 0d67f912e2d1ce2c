"""One suite for each interface of the session store, run over every database."""

from collections.abc import AsyncIterator

import pytest

from hector.storage.store import SqlSessionStore
from tests.backends import Backend
from tests.contract.actor import Actor


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[SqlSessionStore]:
    await backend.clear()
    opened = await backend.open()
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def one(store: SqlSessionStore) -> Actor:
    return await Actor(store).join()


@pytest.fixture
async def two(store: SqlSessionStore) -> Actor:
    return await Actor(store).join()
