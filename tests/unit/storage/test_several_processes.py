"""Several processes that use one file, and one session of it, at once."""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

from hector.domain.messages import UserMessage
from hector.domain.turns import Begun, Joined, Queued, Repeated
from hector.storage.opening import open_sqlite
from hector.storage.sqlite import SqliteSettings
from tests.contract.actor import KEY, Actor

PROCESSES, TURNS, EVERY = 4, 50, 10
"""Each process sends so many messages; every tenth has an id that all of them send."""


_PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.unit.storage.test_several_processes import hammer
asyncio.run(hammer(Path(sys.argv[1]), int(sys.argv[2])))
"""
_CHECKOUT = Path(__file__).parents[3]


async def hammer(path: Path, number: int) -> None:
    store = await open_sqlite("main", SqliteSettings(path, "normal"))
    actor = await Actor(store).join(ttl=60)
    counts = {"ran": 0, "repeated": 0}

    async def run(begun: Begun) -> None:
        await asyncio.sleep(random.random() * 0.002)  # a model answers
        await actor.answer(begun)
        counts["ran"] += 1

    async def take_until_started(turn_id: str) -> None:
        while True:
            if begun := await actor.take():
                await run(begun)
                if begun.lease.turn_id == turn_id:
                    return
            else:
                await asyncio.sleep(0.001)

    async def send(message_id: str) -> None:
        match await actor.send(message_id, message_id):
            case Begun() as begun:
                await run(begun)
            case Queued(turn_id):
                await take_until_started(turn_id)
            case Joined() | Repeated():
                counts["repeated"] += 1

    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for n in range(TURNS):
        if n % EVERY == 0:
            # Twice at once from each process.
            await send(f"all-{n}")
            await send(f"all-{n}")
        else:
            await send(f"{number}-{n}")
    await store.retire(actor.id)
    await store.close()
    print(json.dumps(counts), flush=True)


async def test_no_turn_is_lost_split_or_doubled(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(path), str(n)],
            cwd=_CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        ended = await asyncio.gather(
            *(asyncio.to_thread(process.communicate, "go\n", timeout=50) for process in processes)
        )
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [errors for _, errors in ended] == [""] * PROCESSES
    counts = [json.loads(output) for output, _ in ended]
    shared = TURNS // EVERY
    expected = PROCESSES * (TURNS - shared) + shared
    assert sum(count["ran"] for count in counts) == expected
    assert sum(count["repeated"] for count in counts) == 2 * PROCESSES * shared - shared

    store = await open_sqlite("main", SqliteSettings(path))
    messages = await store.messages(KEY, limit=10_000)
    session = await store.session(KEY)
    await store.close()
    assert session
    assert (session.waiting, session.running_turn_id, session.messages) == (0, None, 2 * expected)
    assert [stored.seq for stored in messages] == list(range(1, 2 * expected + 1))
    asked, answered = messages[::2], messages[1::2]
    assert all(isinstance(stored.message, UserMessage) for stored in asked)
    assert [stored.turn_id for stored in asked] == [stored.turn_id for stored in answered]
    assert (
        len({stored.message_id for stored in asked}) == len({stored.turn_id for stored in asked}) == expected
    )
    assert not [stored for stored in messages if stored.unanswered]
