"""The SQLite drivers: group commit, failures, cancellation, and the locks of replicas."""

import asyncio
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import literal_column, select, text

from hector.domain.errors import OutcomeUnknownError, StorageError, StoreUnavailableError
from hector.storage.locks import ReplicaLocks
from hector.storage.opening import open_sqlite
from hector.storage.operations import Operation, Statement, execute, fetch
from hector.storage.sqlite import MemoryDriver, SqliteDriver, SqliteSettings, connect

INSERT = Statement(text("INSERT INTO notes (note) VALUES (:note)"))
SELECT = Statement(text("SELECT note FROM notes ORDER BY id"))


class FailingConnection:
    """A connection whose commit fails, and on demand its rollback."""

    def __init__(self, connection: sqlite3.Connection, *, commits: int, rolls_back: bool) -> None:
        self._connection, self._commits, self._rolls_back = connection, commits, rolls_back
        self.closed = False

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    @property
    def total_changes(self) -> int:
        return self._connection.total_changes

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self._commits -= 1
            if self._commits < 0:
                raise sqlite3.OperationalError("disk I/O error")
        if sql == "ROLLBACK" and not self._rolls_back:
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, *arguments)

    def close(self) -> None:
        self._connection.close()
        self.closed = True


@pytest.fixture
def settings(tmp_path: Path) -> SqliteSettings:
    settings = SqliteSettings(tmp_path / "notes.db", "normal", readers=2)
    with closing(connect(settings)) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT NOT NULL UNIQUE)")
    return settings


@pytest.fixture
async def driver(settings: SqliteSettings) -> AsyncIterator[SqliteDriver]:
    driver = SqliteDriver(settings, connect(settings))
    driver.start()
    yield driver
    await driver.close()


def note(note: str) -> Operation[str]:
    yield from execute(INSERT, {"note": note})
    return note


def notes() -> Operation[list[str]]:
    return [each for (each,) in (yield from fetch(SELECT, {}))]


def refuse(error: BaseException) -> Operation[None]:
    yield from notes()
    raise error


def note_and_raise(text: str, error: BaseException) -> Operation[None]:
    yield from note(text)
    raise error


@asynccontextmanager
async def held(driver: SqliteDriver) -> AsyncIterator[None]:
    """The writer stands still, so that what is asked for meanwhile becomes one batch."""
    begun, release = threading.Event(), threading.Event()

    def stand_still() -> Operation[None]:
        begun.set()
        assert release.wait(20)
        yield from ()

    holding = asyncio.ensure_future(driver.write(stand_still))
    await asyncio.to_thread(begun.wait)
    try:
        yield
    finally:
        release.set()
        await holding


async def queued(driver: SqliteDriver, *makes: Callable[[], Operation[Any]]) -> list[Any]:
    """Run these as one batch; their results, or what they raised."""
    async with held(driver):
        running = [asyncio.ensure_future(driver.write(make)) for make in makes]
        await asyncio.sleep(0)  # they ask,
        await asyncio.sleep(0)  # and are handed over
    return await asyncio.gather(*running, return_exceptions=True)


async def test_jobs_that_wait_together_share_one_commit(driver: SqliteDriver) -> None:
    statements: list[str] = []
    assert driver._connection
    driver._connection.set_trace_callback(statements.append)
    done = await queued(driver, *(partial(note, str(n)) for n in range(100)))
    assert done == [str(n) for n in range(100)]
    assert statements.count("COMMIT") == 2, "the job that held the writer, and the hundred"
    assert await driver.read(notes) == [str(n) for n in range(100)]


async def test_a_failing_job_leaves_the_others_of_its_batch(driver: SqliteDriver) -> None:
    done = await queued(
        driver,
        partial(note, "a"),
        partial(note_and_raise, "b", ValueError("no")),
        partial(note, "a"),
        partial(note_and_raise, "c", asyncio.CancelledError()),
        partial(note, "d"),
    )
    assert done[0] == "a"
    assert isinstance(done[1], ValueError)
    assert isinstance(done[2], StorageError), "a key is used twice"
    assert isinstance(done[3], asyncio.CancelledError)
    assert done[4] == "d"
    assert await driver.read(notes) == ["a", "d"]


async def test_a_job_that_refuses_undoes_nothing_of_its_batch(driver: SqliteDriver) -> None:
    statements: list[str] = []
    assert driver._connection
    driver._connection.set_trace_callback(statements.append)
    done = await queued(driver, partial(note, "a"), partial(refuse, ValueError("no")), partial(note, "b"))
    assert isinstance(done[1], ValueError)
    assert await driver.read(notes) == ["a", "b"]
    assert "ROLLBACK" not in statements


async def test_a_batch_that_cannot_be_undone_fails_whole(driver: SqliteDriver) -> None:
    assert driver._connection
    failing = FailingConnection(driver._connection, commits=9, rolls_back=False)
    driver._connection = failing  # type: ignore[assignment]  # it has what the driver uses
    done = await queued(driver, partial(note, "a"), partial(note_and_raise, "b", ValueError("no")))
    assert all(isinstance(each, StorageError) for each in done), done
    assert failing.closed
    assert await driver.read(notes) == []
    assert await driver.write(partial(note, "c")) == "c"


async def test_a_failing_job_alone_changes_nothing(driver: SqliteDriver) -> None:
    with pytest.raises(KeyError):
        await driver.write(partial(note_and_raise, "a", KeyError("no")))
    assert await driver.read(notes) == []
    await driver.write(partial(note, "b"))


async def test_a_batch_of_which_sqlite_gave_up_the_transaction_fails_whole(driver: SqliteDriver) -> None:
    rollback = Statement(text("ROLLBACK"))

    def give_up() -> Operation[None]:
        yield from execute(rollback, {})
        raise sqlite3.OperationalError("disk full")

    done = await queued(driver, partial(note, "a"), give_up, partial(note, "b"))
    assert all(isinstance(each, StorageError) for each in done), done
    assert await driver.read(notes) == []
    await driver.write(partial(note, "c"))
    assert await driver.read(notes) == ["c"]


async def test_a_full_disk_is_an_outage_and_passes(driver: SqliteDriver) -> None:
    assert driver._connection
    driver._connection.execute("PRAGMA max_page_count=10")
    done = await queued(driver, partial(note, "a"), partial(note, "x" * 100_000), partial(note, "b"))
    assert isinstance(done[1], StoreUnavailableError)
    survivors = [each for each in done if isinstance(each, str)]
    assert await driver.read(notes) == survivors
    driver._connection.execute("PRAGMA max_page_count=1000000")
    await driver.write(partial(note, "x" * 100_000))


@pytest.mark.parametrize("rolls_back", [True, False])
async def test_a_commit_without_an_answer_is_told_to_all_whom_it_concerns(
    driver: SqliteDriver, rolls_back: bool
) -> None:
    assert driver._connection
    failing = FailingConnection(driver._connection, commits=1, rolls_back=rolls_back)
    driver._connection = failing  # type: ignore[assignment]  # it has what the driver uses
    done = await queued(driver, partial(note, "a"), partial(refuse, ValueError("no")))
    assert all(isinstance(each, OutcomeUnknownError) for each in done), done
    assert failing.closed == (not rolls_back), "what cannot be rolled back is left behind"
    driver._connection = failing._connection if rolls_back else driver._connection
    assert await driver.write(partial(note, "a")) == "a"
    assert await driver.read(notes) == ["a"]


async def test_a_job_that_cannot_begin_changes_nothing(
    driver: SqliteDriver, settings: SqliteSettings
) -> None:
    assert driver._connection
    driver._connection.execute("PRAGMA busy_timeout=20")
    with closing(connect(settings)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = await asyncio.gather(
            driver.write(partial(note, "a")), driver.write(partial(note, "b")), return_exceptions=True
        )
        assert all(isinstance(each, StoreUnavailableError) for each in done)
        other.execute("COMMIT")
    await driver.write(partial(note, "c"))
    assert await driver.read(notes) == ["c"]


async def test_the_writer_survives_whatever_an_operation_raises(driver: SqliteDriver) -> None:
    for error in (MemoryError(), RecursionError(), GeneratorExit(), AssertionError()):
        done = await queued(driver, partial(note_and_raise, "a", error), partial(note, f"{error!r}"))
        assert done[0] is error
        assert done[1] == f"{error!r}"
    assert len(await driver.read(notes)) == 4


async def test_what_a_cancelled_caller_asked_for_is_done_all_the_same(driver: SqliteDriver) -> None:
    async with held(driver):
        leaves = asyncio.ensure_future(driver.write(partial(note, "a")))
        stays = asyncio.ensure_future(driver.write(partial(note, "b")))
        await asyncio.sleep(0)
        leaves.cancel()
    assert await stays == "b"
    assert leaves.cancelled()
    assert await driver.read(notes) == ["a", "b"]


async def test_closing_ends_after_all_that_was_asked_for(settings: SqliteSettings) -> None:
    driver = SqliteDriver(settings, connect(settings))
    driver.start()
    async with held(driver):
        running = [asyncio.ensure_future(driver.write(partial(note, str(n)))) for n in range(200)]
        await asyncio.sleep(0)
        running += [asyncio.ensure_future(driver.write(partial(note, str(n)))) for n in range(200, 300)]
        closing_ = asyncio.ensure_future(driver.close())
        await asyncio.sleep(0)
    assert await asyncio.gather(*running) == [str(n) for n in range(300)]
    await closing_
    await driver.close()
    for use in (driver.write(partial(note, "late")), driver.read(notes)):
        with pytest.raises(StoreUnavailableError, match="closed"):
            await use
    assert not Path(f"{settings.path}-wal").exists(), "the last connection cleans up"


async def test_a_reader_sees_what_was_committed_before_it_asked(driver: SqliteDriver) -> None:
    for n in range(50):
        await driver.write(partial(note, str(n)))
        assert len(await driver.read(notes)) == n + 1


async def test_a_reading_operation_sees_one_snapshot(driver: SqliteDriver) -> None:
    began, go_on = threading.Event(), threading.Event()

    def twice() -> Operation[tuple[list[str], list[str]]]:
        first = yield from notes()
        began.set()
        assert go_on.wait(20)
        return first, (yield from notes())

    reading = asyncio.ensure_future(driver.read(twice))
    await asyncio.to_thread(began.wait)
    await driver.write(partial(note, "meanwhile"))
    go_on.set()
    assert await reading == ([], [])
    assert await driver.read(notes) == ["meanwhile"]


async def test_a_reading_operation_cannot_write(driver: SqliteDriver) -> None:
    with pytest.raises(StorageError, match="readonly"):
        await driver.read(partial(note, "a"))
    assert await driver.read(notes) == []


async def test_a_failed_reading_operation_leaves_its_connection_usable(driver: SqliteDriver) -> None:
    def fails() -> Operation[None]:
        yield from notes()
        raise ValueError("no")

    for _ in range(4):
        with pytest.raises(ValueError, match="no"):
            await driver.read(fails)
        assert await driver.read(notes) == []


async def test_one_connection_is_enough_to_read(settings: SqliteSettings) -> None:
    driver = SqliteDriver(SqliteSettings(settings.path, readers=0), connect(settings))
    driver.start()
    assert await asyncio.gather(*(driver.read(notes) for _ in range(5))) == [[]] * 5
    await driver.close()


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_the_durability_that_was_asked_for_is_set(tmp_path: Path, synchronous: Any, level: int) -> None:
    with closing(connect(SqliteSettings(tmp_path / "x.db", synchronous))) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)


async def test_the_driver_in_memory_keeps_nothing_of_a_failed_operation() -> None:
    driver = MemoryDriver()
    driver.connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT NOT NULL UNIQUE)")
    with pytest.raises(ValueError, match="no"):
        await driver.write(partial(note_and_raise, "a", ValueError("no")))
    await driver.write(partial(note, "b"))
    with pytest.raises(StorageError):
        await driver.write(partial(note, "b"))
    assert await driver.read(notes) == ["b"]
    await driver.close()


# --- locks

_HOLD = """
import sys
from pathlib import Path
from hector.storage.locks import ReplicaLocks
locks = ReplicaLocks(Path(sys.argv[1]))
locks.hold("r1")
print("held", flush=True)
sys.stdin.read()
locks.release("r1")
"""


@contextmanager
def holder(database: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_is_free_as_soon_as_its_process_is_killed(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    locks = ReplicaLocks(database)
    assert locks.is_free("r1"), "never held"
    with holder(database) as process:
        assert not locks.is_free("r1")
        os.kill(process.pid, signal.SIGSTOP)
        assert not locks.is_free("r1"), "who stands still may still live"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert locks.is_free("r1")
    locks.forget("r1")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_released_leaves_no_file(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    with holder(database) as process:
        assert process.stdin
        process.stdin.close()
        process.wait()
    assert ReplicaLocks(database).is_free("r1")
    assert list(tmp_path.iterdir()) == []


def test_looking_at_a_lock_does_not_make_it_look_held(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    with holder(database) as process:
        process.kill()
        process.wait()
    descriptor = os.open(tmp_path / "x.db-replica-r1", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    assert ReplicaLocks(database).is_free("r1")
    os.close(descriptor)


async def test_no_more_readers_stay_open_than_may_idle(tmp_path: Path) -> None:
    opened = await _driver(tmp_path, readers=4, max_idle=2)
    await asyncio.gather(*(opened.read(_slow_read) for _ in range(8)))
    assert len(opened._idle) <= 2
    await opened.close()


async def test_a_reader_older_than_its_lifetime_is_replaced(tmp_path: Path) -> None:
    opened = await _driver(tmp_path, readers=1, max_idle=1, lifetime=1e-9)
    await opened.read(_slow_read)
    assert opened._idle == []
    await opened.close()


def test_locks_of_replicas_that_died_before_they_had_a_row_are_swept(tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    locks, other = ReplicaLocks(database), ReplicaLocks(database)
    old, fresh, held = (tmp_path / f"s.db-replica-{name}" for name in ("old", "fresh", "held"))
    for path in (old, fresh):
        path.touch()
    other.hold("held")
    for path in (old, held):
        os.utime(path, (0, 0))
    locks.sweep()
    assert [path.exists() for path in (old, fresh, held)] == [False, True, True]
    other.release("held")


def _slow_read() -> Operation[int]:
    return len((yield from fetch(Statement(select(literal_column("1"))), {})))


async def _driver(folder: Path, **settings: Any) -> SqliteDriver:
    opened = SqliteSettings(folder / "s.db", **settings)
    driver = SqliteDriver(opened, connect(opened))
    driver.start()
    return driver


@pytest.mark.parametrize("again", [False, True])
async def test_a_file_that_was_removed_is_not_written_to_any_more(tmp_path: Path, again: bool) -> None:
    driver = await _driver(tmp_path)
    await driver.write(_slow_read)
    (tmp_path / "s.db").unlink()
    if again:
        connect(SqliteSettings(tmp_path / "s.db")).close()
    for run in (driver.write, driver.read):
        with pytest.raises(StoreUnavailableError, match="removed or replaced"):
            await run(_slow_read)
    await driver.close()


async def test_a_full_disk_is_told_as_such_and_is_no_unknown_outcome(settings: SqliteSettings) -> None:
    connection = connect(settings)
    driver = SqliteDriver(settings, connection)
    connection.execute("PRAGMA max_page_count=4")
    driver.start()
    with pytest.raises(StoreUnavailableError, match="full"):
        await driver.write(lambda: execute(INSERT, {"note": "x" * 100_000}))
    await driver.write(lambda: execute(INSERT, {"note": "fits"}))
    await driver.close()


@pytest.mark.parametrize("write", [True, False])
async def test_tables_that_are_gone_are_told_as_such(settings: SqliteSettings, write: bool) -> None:
    driver = SqliteDriver(replace(settings, store="main"), connect(settings))
    driver.start()
    with closing(sqlite3.connect(settings.path)) as other:
        other.execute("DROP TABLE notes")
    with pytest.raises(StorageError) as raised:
        await (driver.write if write else driver.read)(lambda: fetch(SELECT, {}))
    assert str(raised.value) == (
        "session store 'main': its schema was changed while it was open; restart hector"
    )
    await driver.close()


async def test_a_column_that_is_gone_is_told_as_such(settings: SqliteSettings) -> None:
    driver = SqliteDriver(replace(settings, store="main"), connect(settings))
    driver.start()
    with closing(sqlite3.connect(settings.path)) as other:
        other.execute("ALTER TABLE notes RENAME COLUMN note TO text")
    both = (
        driver.write(lambda: execute(INSERT, {"note": "one"})),
        driver.write(lambda: execute(INSERT, {"note": "two"})),
    )
    for outcome in await asyncio.gather(*both, return_exceptions=True):
        assert str(outcome) == (
            "session store 'main': its schema was changed while it was open; restart hector"
        )
    await driver.close()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda path: path.write_bytes(b"dear diary" * 1000),
            "session store 'main' failed: file is not a database; name another file, or restore a backup",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes()[:5000] + b"?" * 20_000),
            "session store 'main' failed: database disk image is malformed; restore a backup",
        ),
    ],
)
async def test_a_spoilt_file_is_told_with_the_name_of_the_store_and_what_to_do(
    settings: SqliteSettings, spoil: Callable[[Path], object], expected: str
) -> None:
    connection = connect(settings)
    driver = SqliteDriver(replace(settings, store="main"), connection)
    driver.start()
    await driver.write(lambda: execute(INSERT, {"note": "x" * 20_000}))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(settings.path)
    with pytest.raises(StorageError) as raised:
        await driver.read(lambda: fetch(SELECT, {}))
    assert str(raised.value) == expected
    await driver.close()


async def test_an_open_store_knows_its_name(tmp_path: Path) -> None:
    store = await open_sqlite("main", SqliteSettings(tmp_path / "x.db"))
    (tmp_path / "x.db").unlink()
    with pytest.raises(StoreUnavailableError, match=r"^the file of session store 'main' was removed"):
        await store.sessions(agent_id="a", user_id="u", limit=1)
    await store.close()
