"""One turn in a session store (accept with its tail, end), timed beside a floor that does the same by hand."""

import asyncio
import random
import resource
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
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
RATES = 5
SECONDS = 1.0

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
        # Each message is another: Hector keeps those that it has read, as they never change.
        message_id = uuid.uuid4().hex
        text = message_id + TEXT[len(message_id) :]
        message = UserMessage((Text(text),))
        arrival = Arrival(key, message, message_id, new_turn_id(), self._replica, 80)
        begun = await self._store.accept(arrival, TailLimit(WINDOW))
        assert isinstance(begun, Begun), "sessions are not shared here"
        reply = [NewMessage(ModelMessage((Text(text[::-1]),)), 80)]
        await self._store.end(begun.lease, reply, Outcome(TurnState.COMPLETED))

    async def close(self) -> None:
        await self._store.retire(self._replica)
        await self._store.close()


async def sequential(title: str, ours: TakeTurn, floor: TakeTurn) -> None:
    """Rounds of all, in turn, so that what else the machine does falls on all alike."""
    runs: dict[tuple[int, str], list[_Run]] = {(size, name): [] for size in SIZES for name in ("ours", "raw")}
    for _ in range(ROUNDS):
        for size in SIZES:
            for name, turn in (("ours", ours), ("raw", floor)):
                runs[size, name].append(_Run(*await time_turns(turn, f"size-{size}", TURNS // ROUNDS)))
    rows = []
    for size in SIZES:
        mine, raw = runs[size, "ours"], runs[size, "raw"]
        ratio = median([one.p50 / other.p50 for one, other in zip(mine, raw, strict=True)])
        rows.append((size, *_figures(mine), *_figures(raw), ratio))
    header = ("messages before", "p50", "p99", "CPU", "raw p50", "raw p99", "raw CPU", "p50 / raw p50")
    show(title, header, rows)
    first, *_, last = (median([run.p50 for run in runs[size, "ours"]]) for size in SIZES)
    print(f"\nwith {SIZES[-1]:,} messages {last / first:.2f} times as long as with {SIZES[0]}")


async def at_once(title: str, ours: TakeTurn, floor: TakeTurn) -> None:
    rows = []
    for count in SESSIONS:
        mine, raw = [], []
        for _ in range(RATES):
            mine.append(await rate(ours, count))
            raw.append(await rate(floor, count))
        ratio = median([one[0] / other[0] for one, other in zip(mine, raw, strict=True)])
        figures = [median(column) for run in (mine, raw) for column in zip(*run, strict=True)]
        rows.append((count, *figures, ratio))
    header = ("sessions", "turns/s", "CPU", "raw turns/s", "raw CPU", "turns / raw turns")
    show(f"{title}, CPU in ms a turn", header, rows)


@dataclass(frozen=True, slots=True)
class _Run:
    samples: Sequence[float]
    cpu: float

    @property
    def p50(self) -> float:
        return median(self.samples)


def _figures(runs: Sequence[_Run]) -> tuple[float, float, float]:
    """The median, the 99th percentile and the CPU of one turn."""
    samples = [sample for run in runs for sample in run.samples]
    return median(samples), p99(samples), median([run.cpu for run in runs])


async def time_turns(turn: TakeTurn, session: str, count: int) -> tuple[list[float], float]:
    """Milliseconds of each, and of CPU for one."""
    samples = []
    before = cpu()
    for _ in range(count):
        started = time.perf_counter()
        await turn(session)
        samples.append((time.perf_counter() - started) * 1000)
    return samples, (cpu() - before) / count * 1000


async def rate(turn: TakeTurn, sessions: int) -> tuple[float, float]:
    """Turns a second with that many sessions at once, and milliseconds of CPU for one."""
    done = 0
    before, started = cpu(), time.perf_counter()

    async def loop(number: int) -> None:
        nonlocal done
        await asyncio.sleep(random.random() / 1000)  # noqa: S311  # not all in step
        while time.perf_counter() < started + SECONDS:
            await turn(f"many-{number}")
            done += 1

    await asyncio.gather(*(loop(number) for number in range(sessions)))
    return done / (time.perf_counter() - started), (cpu() - before) / done * 1000


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
