"""One turn in the session store (accept with its tail, end) against raw sqlite3 doing the same two transactions."""

import asyncio
import os
import random
import resource
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from benchmarks.table import median, p99, show
from hector.domain.ids import SessionKey, new_turn_id
from hector.domain.memory import TailLimit
from hector.domain.messages import ModelMessage, Text, UserMessage
from hector.domain.replicas import ReplicaRow
from hector.domain.turns import Arrival, Begun, NewMessage, Outcome, TurnState
from hector.storage.sqlite import SqliteSettings
from hector.storage.store import SqlSessionStore, open_memory, open_sqlite

TEXT = "hello " * 80
WINDOW = 20
SIZES = (10, 1_000, 100_000)
SESSIONS = (1, 32, 256)
ROUNDS = 5
TURNS = 300
SECONDS = 1.5

_CONTENT = f'[{{"text": "{TEXT}"}}]'
_NOW = "strftime('%Y-%m-%d %H:%M:%f','now')"
_LOCK = "SELECT lease_owner, lease_turn_id, lease_epoch, last_seq FROM sessions WHERE agent_id=? AND user_id=? AND id=?"
_SEEN = "SELECT turn_id FROM messages WHERE agent_id=? AND user_id=? AND session_id=? AND message_id=?"
_LEASE = (
    f"UPDATE sessions SET lease_owner=?, lease_turn_id=?, lease_epoch=?, last_seq=?, updated_at={_NOW}"
    " WHERE agent_id=? AND user_id=? AND id=?"
)
_TURN = (
    "INSERT INTO turns (agent_id, user_id, id, session_id, state, retryable, attempt, epoch, superseded, first_seq,"
    " input_tokens, output_tokens, replica_id, created_at, started_at)"
    f" VALUES (?,?,?,?,'working',0,1,?,0,?,0,0,?,{_NOW},{_NOW})"
)
_MESSAGE = (
    "INSERT INTO messages (agent_id, user_id, session_id, seq, turn_id, message_id, retry, role, content, tokens,"
    f" created_at) VALUES (?,?,?,?,?,?,0,?,?,?,{_NOW})"
)
_TAIL = (
    "SELECT seq, role, content, tokens FROM messages WHERE agent_id=? AND user_id=? AND session_id=? AND seq<?"
    f" ORDER BY seq DESC LIMIT {WINDOW}"
)
_RELEASE = (
    f"UPDATE sessions SET last_seq=?, lease_owner=NULL, lease_turn_id=NULL, updated_at={_NOW}"
    " WHERE agent_id=? AND user_id=? AND id=? AND lease_owner=? AND lease_turn_id=? AND lease_epoch=? AND last_seq=?"
)
_DONE = (
    f"UPDATE turns SET state='completed', last_seq=?, replica_id=NULL, ended_at={_NOW}"
    " WHERE agent_id=? AND user_id=? AND id=?"
)


class RawTurns:
    """The floor: prepared text, one connection, no thread, nothing checked."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._owner = str(uuid.uuid4())

    def turn(self, session: str) -> None:
        run, key = self._connection.execute, ("a", "u", session)
        turn, message = new_turn_id(), uuid.uuid4().hex
        run("BEGIN IMMEDIATE")
        _, _, epoch, seq = run(_LOCK, key).fetchone()
        run(_SEEN, (*key, message)).fetchone()
        epoch, seq = epoch + 1, seq + 1
        run(_LEASE, (self._owner, turn, epoch, seq, *key))
        run(_TURN, ("a", "u", turn, session, epoch, seq, self._owner))
        run(_MESSAGE, (*key, seq, turn, message, 1, _CONTENT, 80))
        run(_TAIL, (*key, seq)).fetchall()
        run("COMMIT")
        run("BEGIN IMMEDIATE")
        run(_RELEASE, (seq + 1, *key, self._owner, turn, epoch, seq))
        run(_MESSAGE, (*key, seq + 1, turn, None, 2, _CONTENT, 80))
        run(_DONE, (seq + 1, "a", "u", turn))
        run("COMMIT")

    def close(self) -> None:
        self._connection.close()


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


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hector-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        for synchronous in ("full", "normal"):
            await _one_database(Path(folder) / f"{synchronous}.db", synchronous)
        await _in_memory()


async def _one_database(path: Path, synchronous: Literal["full", "normal"]) -> None:
    store = await open_sqlite("bench", SqliteSettings(path, synchronous))
    turns = StoreTurns(store)
    await turns.register()
    _fill(path)
    raw = RawTurns(path, synchronous)

    async def floor(session: str) -> None:
        raw.turn(session)

    await _sequential(f"SQLite, synchronous={synchronous.upper()}: one turn, ms", turns.turn, floor)
    await _at_once(f"SQLite, synchronous={synchronous.upper()}: many sessions", turns.turn, floor)
    raw.close()
    await turns.close()
    count, size = _messages(path), sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    print(f"\non disk: {size / count:.0f} bytes a message of {len(TEXT)} bytes, all tables and indexes")


async def _in_memory() -> None:
    turns = StoreTurns(open_memory())
    await turns.register()
    for session in [f"s{count}" for count in SESSIONS]:
        await turns.turn(session)
    samples, cpu = await _time(turns.turn, "s1", TURNS)
    show("in memory: one turn, ms", ("wall p50", "p99", "CPU"), [(median(samples), p99(samples), cpu)])
    await turns.close()


async def _sequential(
    title: str, ours: Callable[[str], Awaitable[None]], floor: Callable[[str], Awaitable[None]]
) -> None:
    """Rounds of both, in turn, so that what else the machine does falls on both alike."""
    rows = []
    for size in SIZES:
        session = f"size-{size}"
        figures: dict[str, list[tuple[float, float, float]]] = {"ours": [], "raw": []}
        for _ in range(ROUNDS):
            for name, turn in (("ours", ours), ("raw", floor)):
                samples, cpu = await _time(turn, session, TURNS // ROUNDS)
                figures[name].append((median(samples), p99(samples), cpu))
        mine, raw = (
            [statistics.median(column) for column in zip(*figures[name], strict=True)] for name in figures
        )
        rows.append((size, mine[0], mine[1], mine[2], raw[0], raw[1], mine[0] / raw[0]))
    show(title, ("messages before", "p50", "p99", "CPU", "raw p50", "raw p99", "ratio p50"), rows)


async def _at_once(
    title: str, ours: Callable[[str], Awaitable[None]], floor: Callable[[str], Awaitable[None]]
) -> None:
    rows = []
    for count in SESSIONS:
        mine, raw = [], []
        for _ in range(3):
            mine.append(await _rate(ours, count))
            raw.append(await _rate(floor, count))
        rows.append((count, median(mine), median(raw), median(mine) / median(raw)))
    show(title, ("sessions", "turns/s", "raw turns/s", "ratio"), rows)


async def _time(
    turn: Callable[[str], Awaitable[None]], session: str, count: int
) -> tuple[list[float], float]:
    """Milliseconds of each, and of CPU for one."""
    samples = []
    before = _cpu()
    for _ in range(count):
        started = time.perf_counter()
        await turn(session)
        samples.append((time.perf_counter() - started) * 1000)
    return samples, (_cpu() - before) / count * 1000


async def _rate(turn: Callable[[str], Awaitable[None]], sessions: int) -> float:
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


def _fill(path: Path) -> None:
    """Sessions of each size, and the ones that run at once."""
    connection = sqlite3.connect(path)
    sessions = [(f"size-{size}", size) for size in SIZES] + [
        (f"many-{number}", 0) for number in range(max(SESSIONS))
    ]
    for session, size in sessions:
        connection.execute(
            "INSERT INTO sessions (id, agent_id, user_id, metadata, created_at, updated_at, incarnation, last_seq,"
            " next_ticket, waiting, lease_epoch, summarized_through_seq, indexed_through_seq)"
            f" VALUES (?, 'a', 'u', '{{}}', {_NOW}, {_NOW}, 'x', ?, 0, 0, 0, 0, 0)",
            (session, size),
        )
        rows = (
            ("a", "u", session, seq, "t", None, 1 + (seq + 1) % 2, _CONTENT, 80) for seq in range(1, size + 1)
        )
        connection.executemany(_MESSAGE, rows)
    connection.commit()
    connection.close()


def _messages(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    connection.close()
    return int(count)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
