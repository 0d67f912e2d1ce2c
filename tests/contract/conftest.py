"""One suite for each interface of the session store, run over every database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hector.storage.store import SqlSessionStore
from tests.backends import BACKENDS, Backend, backend_for
from tests.contract.actor import Actor


@pytest.fixture(params=[*BACKENDS, "pgbouncer"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """PgBouncer is no other database, but another way to PostgreSQL, which these suites go all along."""
    return backend_for(request, tmp_path)


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
