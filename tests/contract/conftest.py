"""One suite for each interface of the session store, run over every database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hector.storage.sqlite import SqliteSettings
from hector.storage.store import SqlSessionStore, open_memory, open_sqlite
from tests.contract.actor import Actor


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlSessionStore]:
    match request.param:
        case "memory":
            opened = open_memory()
        case "sqlite":
            # NORMAL differs in the fsync alone, which no test here can see.
            settings = SqliteSettings(tmp_path / "sessions.db", "normal")
            opened = await open_sqlite("main", settings)
        case other:
            raise NotImplementedError(other)
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
