"""The contract of `ReplicaLocks`: whose process has ended, told by what it held and not by the time."""

import asyncio
import base64
import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hector.domain.replicas import ReplicaRow
from hector.storage.store import SqlSessionStore
from tests.backends import BACKENDS, Backend
from tests.contract.actor import Actor

# A store in memory has one process.
BY_LOCK = pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)
BY_TTL_ALONE = pytest.mark.parametrize("backend", ["pgbouncer"], indirect=True)

_PROCESS = """
import asyncio, base64, pickle, sys
from hector.domain.replicas import ReplicaRow

async def main():
    store = await pickle.loads(base64.b64decode(sys.argv[1])).open()
    await store.register(ReplicaRow(sys.argv[2], "", 15.0, 0))
    await store.beat(sys.argv[2])
    print("beats", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def another_process(backend: Backend, replica_id: str) -> AsyncIterator[int]:
    """That replica, which has beaten once; its process id."""
    how = base64.b64encode(pickle.dumps(replace(backend, server=None))).decode()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROCESS, how, replica_id),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        assert await process.stdout.readline() == b"beats\n"
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def rows(store: SqlSessionStore) -> dict[str, ReplicaRow]:
    return {row.id: row for row in await store.replicas()}


async def freed(store: SqlSessionStore) -> set[str]:
    assert store.locks
    return set(await store.locks.freed(await store.replicas()))


@BY_LOCK
async def test_a_lock_is_freed_by_sigkill_and_by_nothing_less(
    store: SqlSessionStore, backend: Backend, one: Actor
) -> None:
    await store.beat(one.id)
    async with another_process(backend, "other") as process:
        assert await freed(store) == set()
        os.kill(process, signal.SIGSTOP)
        assert await freed(store) == set(), "who stands still may go on"
        os.kill(process, signal.SIGKILL)
        while await freed(store) != {"other"}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nobody tells


@BY_LOCK
async def test_who_is_taken_for_dead_and_registers_anew_holds_a_lock_again(
    store: SqlSessionStore, one: Actor
) -> None:
    await store.beat(one.id)
    await one.die()
    assert not await store.beat(one.id)
    again = await Actor(store).join()
    await store.beat(again.id)
    assert await freed(store) == set()


@BY_TTL_ALONE
async def test_through_a_pooler_no_lock_is_held_and_none_is_missed(
    store: SqlSessionStore, backend: Backend, one: Actor
) -> None:
    assert await store.beat(one.id)
    async with another_process(backend, "other"):
        assert {row.lock for row in (await rows(store)).values()} == {None}
        assert (await rows(store))["other"].counter == 1
    assert await freed(store) == set()
