"""What a turn costs in a session of a million messages, most of them summarised, and in one of ten."""

import os
import sqlite3
import tempfile
import uuid
from pathlib import Path

from benchmarks.floors import MariaDbFloor, PostgresFloor
from benchmarks.servers import filling, open_bench
from benchmarks.sqlite import NOW, RawTurns, fill_session
from benchmarks.table import median, p99, show
from benchmarks.turns import TEXT, TakeTurn, time_turns
from hector.domain.ids import SessionKey, new_turn_id
from hector.domain.memory import Compaction
from hector.domain.messages import ModelMessage, Text, UserMessage
from hector.domain.replicas import ReplicaRow
from hector.domain.turns import Arrival, Begun, NewMessage, Outcome, TurnState
from hector.memory.token_budget import TokenBudget
from hector.memory.tokens import counter_for
from hector.storage.opening import open_sqlite
from hector.storage.sqlite import SqliteSettings
from hector.storage.store import SqlSessionStore
from tests.servers import running

SIZES = (10, 1_000_000)
UNSUMMARISED = 8
"""Messages that the summary does not cover."""
BUDGET = 2000
ROUNDS, TURNS = 10, 400
_SUMMARY = "They spoke of ships, and the order is ALPHA-789. " * 10
_COVERED = (
    "INSERT INTO summaries (agent_id, user_id, session_id, through_seq, content, tokens, created_at)"
    " VALUES ('a', 'u', '{session}', {seq}, '{text}', 120, {now})"
)
_COVERS = "UPDATE sessions SET summarized_through_seq = {seq} WHERE id = '{session}'"


class Resuming:
    """Turns with what the model is sent, by a budget; the session is the same in all its life."""

    def __init__(self, store: SqlSessionStore) -> None:
        self._store = store
        self._memory = TokenBudget(BUDGET, counter_for("gpt-4o"), Compaction(BUDGET, 0.8, 0.6))
        self._replica = str(uuid.uuid4())

    async def register(self) -> None:
        await self._store.register(ReplicaRow(self._replica, "bench", 60.0, 0))

    async def turn(self, session: str) -> None:
        message = UserMessage((Text(uuid.uuid4().hex),))
        arrival = Arrival(
            SessionKey("a", "u", session), message, uuid.uuid4().hex, new_turn_id(), self._replica, 80
        )
        begun = await self._store.accept(arrival, self._memory.limit)
        assert isinstance(begun, Begun), "sessions are not shared here"
        assert begun.tail.summary
        assert self._memory.select(begun.tail).sent[0].seqs == ()
        reply = [NewMessage(ModelMessage((Text(TEXT),)), 80)]
        await self._store.end(begun.lease, reply, Outcome(TurnState.COMPLETED))

    async def close(self) -> None:
        await self._store.retire(self._replica)
        await self._store.close()


async def main() -> None:
    await _sqlite()
    await _postgres()
    await _mariadb()


async def _sqlite() -> None:
    with tempfile.TemporaryDirectory(prefix="hector-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        path = Path(folder) / "resume.db"
        ours = Resuming(await open_sqlite("bench", SqliteSettings(path, "full")))
        connection = sqlite3.connect(path)
        for size in SIZES:
            fill_session(connection, _name(size), size)
            for statement in _summarised(size, NOW):
                connection.execute(statement)
        connection.commit()
        connection.close()
        raw = RawTurns(path, "full")

        async def floor(session: str) -> None:
            raw.turn(session)

        await _measure("SQLite", ours, floor)
        raw.close()


async def _postgres() -> None:
    async with running("postgres", durable=True) as servers:
        db = await servers["postgres"].create_database()
        now = "timezone('utc', clock_timestamp())"
        ours = Resuming(await open_bench(db))
        for size in SIZES:
            await db.run(*filling(_name(size), size, now, f"generate_series(1, {size}) AS seq"))
            await db.run(*_summarised(size, now))
        await db.run("ANALYZE")
        floor = await PostgresFloor().open(db, f'"{db.user}"', 1)
        await _measure("PostgreSQL", ours, floor.turn)
        await floor.close()


async def _mariadb() -> None:
    async with running("mysql", durable=True) as servers:
        db = await servers["mysql"].create_database()
        now = "utc_timestamp(6)"
        ours = Resuming(await open_bench(db))
        for size in SIZES:
            await db.run(*filling(_name(size), size, now, f"seq_1_to_{size}"))
            await db.run(*_summarised(size, now))
        await db.run("ANALYZE TABLE sessions, messages")
        floor = await MariaDbFloor().open(db, 1)
        await _measure("MariaDB", ours, floor.turn)
        await floor.close()


async def _measure(title: str, ours: Resuming, floor: TakeTurn) -> None:
    await ours.register()
    samples: dict[tuple[int, bool], list[float]] = {
        (size, raw): [] for size in SIZES for raw in (False, True)
    }
    for _ in range(ROUNDS):
        for size in SIZES:
            for raw, turn in ((False, ours.turn), (True, floor)):
                samples[size, raw] += (await time_turns(turn, _name(size), TURNS // ROUNDS))[0]
    await ours.close()
    rows = [
        (f"{size:,}", *(figure(samples[size, raw]) for raw in (False, True) for figure in (median, p99)))
        for size in SIZES
    ]
    show(
        f"{title}: a turn after a summary, ms", ("messages before", "p50", "p99", "raw p50", "raw p99"), rows
    )
    few, many = (median(samples[size, False]) for size in SIZES)
    print(f"\nwith {SIZES[1]:,} messages {many / few:.2f} times as long as with {SIZES[0]}")


def _name(size: int) -> str:
    return f"size-{size}"


def _summarised(size: int, now: str) -> list[str]:
    names = {"session": _name(size), "seq": max(1, size - UNSUMMARISED), "text": _SUMMARY, "now": now}
    return [_COVERED.format(**names), _COVERS.format(**names)]
