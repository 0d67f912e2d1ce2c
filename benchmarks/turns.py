"""One turn in a session store (accept with its tail, end), timed beside a floor that does the same by hand."""

import asyncio
import random
import resource
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from benchmarks.table import median, p99, show
from hector.domain.ids import SessionKey, new_turn_id
from hector.domain.memory import TailLimit
from hector.domain.messages import ModelMessage, Text, UserMessage
from hector.domain.replicas import ReplicaRow
from hector.domain.turns import Arrival, Begun, NewMessage, Outcome, TurnState
from hector.storage.store import SqlSessionStore

TEXT = "hello " * 80
CONTENT = f'[{{"text": "{TEXT}"}}]'
WINDOW = 20
SIZES = (10, 1_000, 100_000)
SESSIONS = (1, 32, 256)
ROUNDS = 5
TURNS = 300
SECONDS = 1.5

TakeTurn: TypeAlias = Callable[[str], Awaitable[None]]
"""In a session of this id."""


class StoreTurns:
    def __init__(self, store: SqlSessionStore) -> None:
        self._store = store
        self._replica = str(uuid.uuid4())

    async def register(self) -> None:
        await self._store.register(ReplicaRow(self._replica, "bench", 60.0, 0))

    async def turn(self, session: str) -> None:
        key = SessionKey("a", "u", session)
        message = UserMessage((Text(TEXT),))
        arrival = Arrival(key, message, uuid.uuid4().hex, new_turn_id(), self._replica, 80)
        begun = await self._store.accept(arrival, TailLimit(WINDOW))
        assert isinstance(begun, Begun), "sessions are not shared here"
        reply = [NewMessage(ModelMessage((Text(TEXT),)), 80)]
        await self._store.end(begun.lease, reply, Outcome(TurnState.COMPLETED))

    async def close(self) -> None:
        await self._store.retire(self._replica)
        await self._store.close()


async def sequential(title: str, ours: TakeTurn, floor: TakeTurn) -> None:
    """Rounds of both, in turn, so that what else the machine does falls on both alike."""
    rows = []
    for size in SIZES:
        session = f"size-{size}"
        figures: dict[str, list[tuple[float, float, float]]] = {"ours": [], "raw": []}
        for _ in range(ROUNDS):
            for name, turn in (("ours", ours), ("raw", floor)):
                samples, cpu = await time_turns(turn, session, TURNS // ROUNDS)
                figures[name].append((median(samples), p99(samples), cpu))
        mine, raw = (
            [statistics.median(column) for column in zip(*figures[name], strict=True)] for name in figures
        )
        rows.append((size, mine[0], mine[1], mine[2], raw[0], raw[1], mine[0] / raw[0]))
    show(title, ("messages before", "p50", "p99", "CPU", "raw p50", "raw p99", "ratio p50"), rows)


async def at_once(title: str, ours: TakeTurn, floor: TakeTurn) -> None:
    rows = []
    for count in SESSIONS:
        mine, raw = [], []
        for _ in range(3):
            mine.append(await rate(ours, count))
            raw.append(await rate(floor, count))
        rows.append((count, median(mine), median(raw), median(mine) / median(raw)))
    show(title, ("sessions", "turns/s", "raw turns/s", "ratio"), rows)


async def time_turns(turn: TakeTurn, session: str, count: int) -> tuple[list[float], float]:
    """Milliseconds of each, and of CPU for one."""
    samples = []
    before = cpu()
    for _ in range(count):
        started = time.perf_counter()
        await turn(session)
        samples.append((time.perf_counter() - started) * 1000)
    return samples, (cpu() - before) / count * 1000


async def rate(turn: TakeTurn, sessions: int) -> float:
    """Turns a second with that many sessions at once."""
    done = 0
    started = time.perf_counter()

    async def loop(number: int) -> None:
        nonlocal done
        await asyncio.sleep(random.random() / 1000)  # noqa: S311  # not all in step
        while time.perf_counter() < started + SECONDS:
            await turn(f"many-{number}")
            done += 1

    await asyncio.gather(*(loop(number) for number in range(sessions)))
    return done / (time.perf_counter() - started)


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
