"""A turn on SQLite, against raw sqlite3 doing the same two transactions."""

import os
import sqlite3
import tempfile
import uuid
from pathlib import Path
from typing import Literal

from benchmarks.table import median, p99, show
from benchmarks.turns import (
    CONTENT,
    SESSIONS,
    SIZES,
    TEXT,
    TURNS,
    WINDOW,
    StoreTurns,
    at_once,
    rate,
    sequential,
    time_turns,
)
from hector.domain.ids import new_turn_id
from hector.storage.opening import open_memory, open_sqlite
from hector.storage.sqlite import SqliteDriver, SqliteSettings
from hector.storage.store import SqlSessionStore

NOW = "strftime('%Y-%m-%d %H:%M:%f','now')"
_LOCK = "SELECT lease_owner, lease_turn_id, lease_epoch, last_seq FROM sessions WHERE agent_id=? AND user_id=? AND id=?"
_SEEN = "SELECT turn_id FROM messages WHERE agent_id=? AND user_id=? AND session_id=? AND message_id=?"
_LEASE = (
    f"UPDATE sessions SET lease_owner=?, lease_turn_id=?, lease_epoch=?, last_seq=?, updated_at={NOW}"
    " WHERE agent_id=? AND user_id=? AND id=?"
)
_TURN = (
    "INSERT INTO turns (agent_id, user_id, id, session_id, state, retryable, attempt, epoch, superseded, first_seq,"
    " input_tokens, output_tokens, replica_id, created_at, started_at)"
    f" VALUES (?,?,?,?,'working',0,1,?,0,?,0,0,?,{NOW},{NOW})"
)
_MESSAGE = (
    "INSERT INTO messages (agent_id, user_id, session_id, seq, turn_id, message_id, retry, role, content, tokens,"
    f" created_at) VALUES (?,?,?,?,?,?,0,?,?,?,{NOW})"
)
_TAIL = (
    "SELECT seq, turn_id, message_id, role, content, metadata, tokens, unanswered FROM messages"
    " WHERE agent_id=? AND user_id=? AND session_id=? AND seq>0 AND seq<?"
    f" ORDER BY seq DESC LIMIT {WINDOW}"
)
_RELEASE = (
    f"UPDATE sessions SET last_seq=?, lease_owner=NULL, lease_turn_id=NULL, updated_at={NOW}"
    " WHERE agent_id=? AND user_id=? AND id=? AND lease_owner=? AND lease_turn_id=? AND lease_epoch=? AND last_seq=?"
)
_DONE = (
    f"UPDATE turns SET state='completed', last_seq=?, replica_id=NULL, ended_at={NOW}"
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
        run(_MESSAGE, (*key, seq, turn, message, 1, CONTENT, 80))
        run(_TAIL, (*key, seq)).fetchall()
        run("COMMIT")
        run("BEGIN IMMEDIATE")
        run(_RELEASE, (seq + 1, *key, self._owner, turn, epoch, seq))
        run(_MESSAGE, (*key, seq + 1, turn, None, 2, CONTENT, 80))
        run(_DONE, (seq + 1, "a", "u", turn))
        run("COMMIT")

    def close(self) -> None:
        self._connection.close()


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

    await sequential(f"SQLite, synchronous={synchronous.upper()}: one turn, ms", turns.turn, floor)
    await at_once(f"SQLite, synchronous={synchronous.upper()}: many sessions", turns.turn, floor)
    raw.close()
    print()
    for count in SESSIONS:
        statements, commits = await _count(store, turns, count)
        print(f"sessions: {count}; statements a turn: {statements:.1f}; commits a turn: {commits:.2f}")
    await turns.close()
    count, size = _messages(path), sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    print(f"on disk: {size / count:.0f} bytes a message of {len(TEXT)} bytes, all tables and indexes")


async def _count(store: SqlSessionStore, turns: StoreTurns, sessions: int) -> tuple[float, float]:
    """The writer's statements and commits of a turn, with that many sessions at once."""
    texts: list[str] = []
    assert isinstance(store._driver, SqliteDriver)  # noqa: SLF001  # to look inside is its purpose
    writer = store._driver._connection  # noqa: SLF001
    assert writer
    writer.set_trace_callback(texts.append)
    await rate(turns.turn, sessions)
    writer.set_trace_callback(None)
    done = sum(text.startswith("INSERT INTO turns") for text in texts)
    commits = texts.count("COMMIT")
    return (len(texts) - 2 * commits) / done, commits / done


async def _in_memory() -> None:
    turns = StoreTurns(open_memory())
    await turns.register()
    for session in [f"s{count}" for count in SESSIONS]:
        await turns.turn(session)
    samples, cpu = await time_turns(turns.turn, "s1", TURNS)
    show("in memory: one turn, ms", ("wall p50", "p99", "CPU"), [(median(samples), p99(samples), cpu)])
    await turns.close()


def _fill(path: Path) -> None:
    """Sessions of each size, and the ones that run at once."""
    connection = sqlite3.connect(path)
    for size in SIZES:
        fill_session(connection, f"size-{size}", size)
    for number in range(max(SESSIONS)):
        fill_session(connection, f"many-{number}", 0)
    connection.commit()
    connection.close()


def fill_session(connection: sqlite3.Connection, session: str, size: int) -> None:
    """Make a session of so many messages."""
    connection.execute(
        "INSERT INTO sessions (id, agent_id, user_id, metadata, created_at, updated_at, incarnation, last_seq,"
        " next_ticket, waiting, lease_epoch, summarized_through_seq, indexed_through_seq)"
        f" VALUES (?, 'a', 'u', '{{}}', {NOW}, {NOW}, 'x', ?, 0, 0, 0, 0, 0)",
        (session, size),
    )
    rows = (("a", "u", session, seq, "t", None, 1 + (seq + 1) % 2, CONTENT, 80) for seq in range(1, size + 1))
    connection.executemany(_MESSAGE, rows)


def _messages(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    connection.close()
    return int(count)
