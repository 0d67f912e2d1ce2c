"""SQLite: one writer thread that commits in groups, and readers beside it."""

import asyncio
import contextlib
import queue
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy.dialects import sqlite as sqlalchemy_sqlite

from hector.domain.errors import OutcomeUnknownError, StorageError, StoreUnavailableError
from hector.storage.operations import Language, MakeOperation, Operation, Result

T = TypeVar("T")

BUSY_TIMEOUT = 20.0
"""Seconds that a writer waits for another process's transaction."""
_MAX_BATCH = 256
_UNWRITABLE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
_OTHER_SCHEMA = re.compile(r"no such (table|column)|table \S+ has no column named")
_REMEDIES = {
    sqlite3.SQLITE_CANTOPEN: "check that its folder is there, and writable for this user",
    sqlite3.SQLITE_CORRUPT: "restore a backup",
    sqlite3.SQLITE_FULL: "make room there",
    sqlite3.SQLITE_IOERR: "look at the disk, and at the system's log",
    sqlite3.SQLITE_NOTADB: "name another file, or restore a backup",
    sqlite3.SQLITE_READONLY: "check who may write the file and its folder",
}
LANGUAGE = Language(sqlalchemy_sqlite.dialect(paramstyle="qmark"))


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    path: Path
    synchronous: Literal["full", "normal"] = "full"
    readers: int = 4
    """Connections beside the writer's; at least one."""
    max_idle: int = 4
    """How many of them stay open while nobody reads."""
    lifetime: float = 0.0
    """Seconds after which one of them is replaced; 0 for never."""
    auto_migrate: bool = True
    """Create and migrate the schema; otherwise opening a file whose schema is not current fails."""
    store: str = ""
    """The session store's name, for errors."""


def connect(settings: SqliteSettings) -> sqlite3.Connection:
    """A connection that leaves transactions to us."""
    connection = sqlite3.connect(
        settings.path,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={settings.synchronous}")
        # Where fsync does not reach the disk (macOS); elsewhere it changes nothing.
        connection.execute(f"PRAGMA fullfsync={settings.synchronous == 'full'}")
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def run(connection: sqlite3.Connection, operation: Operation[T]) -> T:
    """Drive an operation to its end, inside the transaction that the caller has begun."""
    try:
        steps = next(operation)
        while True:
            results = []
            for statement, parameters in steps:
                cursor = connection.execute(*statement.bind(LANGUAGE, parameters))
                results.append(Result(cursor.fetchall(), cursor.rowcount))
            steps = operation.send(results)
    except StopIteration as stop:
        value: T = stop.value
        return value


@contextlib.contextmanager
def translated(store: str = "") -> Iterator[None]:
    """sqlite3's errors as ours; without a name where that stands before them, or there is none."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, store) from error


def _named(store: str) -> str:
    return f"session store {store!r}" if store else "the session store"


def _translate(error: sqlite3.Error, store: str) -> StorageError:
    name, code = _named(store), _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailableError(
            f"{name} was locked by another process for {BUSY_TIMEOUT:.0f} s; try again"
        )
    if _OTHER_SCHEMA.match(str(error)):
        return StorageError(f"{name}: its schema was changed while it was open; restart hector")
    why = "; ".join(filter(None, [str(error), _REMEDIES.get(code)]))
    if code in _UNWRITABLE:
        return StoreUnavailableError(f"{name} cannot be used: {why}")
    return StorageError(f"{name} failed: {why}")


def _code(error: sqlite3.Error) -> int:
    """The primary one; 0 for what is not SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


@dataclass(slots=True)
class _Job:
    """An operation that waits for the writer, and where its outcome goes."""

    make: MakeOperation[Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Reader:
    connection: sqlite3.Connection
    opened_at: float
    """By the monotonic clock."""


class SqliteDriver:
    """Runs operations on a database file, for the event loop on which it was made."""

    shared = True

    def __init__(self, settings: SqliteSettings, connection: sqlite3.Connection) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._asked: list[_Job] = []
        """In this turn of the event loop."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = connection
        """The writer's; None after a failure that left it in doubt."""
        self._file = _file_of(settings.path)
        self._writer = threading.Thread(target=self._write_all, name="hector-sqlite-writer", daemon=True)
        self._readers = ThreadPoolExecutor(
            max(1, settings.readers), thread_name_prefix="hector-sqlite-reader"
        )
        self._idle: list[_Reader] = []
        """Of the readers, the last used last. Guarded by the lock."""
        self._idle_lock = threading.Lock()

    def start(self) -> None:
        self._writer.start()

    async def write(
        self,
        make: MakeOperation[T],
        at_once: MakeOperation[T | None] | None = None,
        *,
        group: Hashable = None,
    ) -> T:
        """Run an operation in a transaction of its own; returns after the commit is on disk.

        It runs also if its caller is cancelled meanwhile.
        """
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._asked:
            # Handed over one by one, the first would be committed alone, and two threads would take the
            # interpreter from each other while the rest come.
            self._loop.call_soon(self._hand_over)
        self._asked.append(_Job(make, future))
        return await future

    async def read(self, make: MakeOperation[T]) -> T:
        """Run a reading operation on one snapshot, which holds all that was committed before."""
        self._check_open()
        return await self._loop.run_in_executor(self._readers, self._read, make)

    async def close(self) -> None:
        """Ends when all that was asked for is done."""
        self._closed = True
        self._hand_over()
        self._jobs.put(None)
        await asyncio.to_thread(self._shut_down)

    def time_argument(self, moment: datetime) -> str:
        return time_argument(moment)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the session store is closed")

    def _hand_over(self) -> None:
        for job in self._asked:
            self._jobs.put(job)
        self._asked.clear()

    def _shut_down(self) -> None:
        self._writer.join()
        self._readers.shutdown()
        for reader in self._idle:
            reader.connection.close()
        if self._connection:
            self._connection.close()

    def _read(self, make: MakeOperation[T]) -> T:
        with translated(self._settings.store), self._reader() as connection:
            self._check_file()
            connection.execute("BEGIN")
            try:
                return run(connection, make())
            finally:
                _roll_back(connection)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection of the calling thread's own; after an error it is not used again."""
        with self._idle_lock:
            reader = self._idle.pop() if self._idle else None
        if reader is None:
            reader = _Reader(connect(self._settings), time.monotonic())
            reader.connection.execute("PRAGMA query_only=ON")
        try:
            yield reader.connection
        except sqlite3.Error:
            reader.connection.close()
            raise
        except BaseException:
            self._put_back(reader)
            raise
        self._put_back(reader)

    def _put_back(self, reader: "_Reader") -> None:
        lifetime = self._settings.lifetime
        too_old = lifetime > 0 and time.monotonic() - reader.opened_at >= lifetime
        with self._idle_lock:
            if not too_old and len(self._idle) < self._settings.max_idle:
                self._idle.append(reader)
                return
        reader.connection.close()

    # --- in the writer's thread

    def _write_all(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._next_batch()
            if batch:
                outcomes = self._commit(batch)
                with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to be told
                    self._loop.call_soon_threadsafe(_resolve, batch, outcomes)

    def _next_batch(self) -> tuple[list[_Job], bool]:
        """What waits now, at least one job; and whether more may come."""
        batch: list[_Job] = []
        job = self._jobs.get()
        with contextlib.suppress(queue.Empty):
            while job is not None:
                batch.append(job)
                if len(batch) == _MAX_BATCH:
                    return batch, True
                job = self._jobs.get_nowait()
            return batch, False
        return batch, True

    def _commit(self, batch: list[_Job]) -> list[Any]:
        """Run a batch in one transaction: one fsync, and each operation has an outcome of its own."""
        try:
            connection = self._begin()
            if len(batch) == 1:
                outcomes = [run(connection, batch[0].make())]
            else:
                outcomes = self._run_together(connection, batch)
        except BaseException as error:  # noqa: BLE001  # the writer outlives any operation; the callers get it
            self._give_up()
            return [self._ours(error)] * len(batch)
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            failure = _uncommitted(error, self._settings.store, rolled_back=self._give_up())
            # The errors among the outcomes, too, may rest on what others in the batch had written.
            return [failure] * len(batch)
        return outcomes

    def _run_together(self, connection: sqlite3.Connection, batch: list[_Job]) -> list[Any]:
        """Run each operation, and undo those that fail.

        Nearly all that fail have changed nothing by then; a savepoint for each would cost more than they do.
        """
        outcomes: list[Any] = []
        for job in batch:
            changes = connection.total_changes
            try:
                outcomes.append(run(connection, job.make()))
            except BaseException as error:  # noqa: BLE001  # one job's failure is not the batch's
                if not connection.in_transaction or connection.total_changes != changes:
                    break
                outcomes.append(self._ours(error))
        else:
            return outcomes
        _roll_back(connection)
        connection.execute("BEGIN IMMEDIATE")
        return [self._run_in_savepoint(connection, job.make) for job in batch]

    def _run_in_savepoint(
        self, connection: sqlite3.Connection, make: Callable[[], Operation[T]]
    ) -> T | BaseException:
        connection.execute("SAVEPOINT job")
        try:
            outcome: T | BaseException = run(connection, make())
        except BaseException as error:  # one job's failure is not the batch's
            if not connection.in_transaction:
                raise  # SQLite itself gave up the whole transaction: disk full, I/O error
            connection.execute("ROLLBACK TO job")
            outcome = self._ours(error)
        connection.execute("RELEASE job")
        return outcome

    def _ours(self, error: BaseException) -> BaseException:
        if not isinstance(error, sqlite3.Error):
            return error
        ours = _translate(error, self._settings.store)
        ours.__cause__ = error
        return ours

    def _begin(self) -> sqlite3.Connection:
        with translated(self._settings.store):
            if self._connection is None:
                self._connection = connect(self._settings)
            self._connection.execute("BEGIN IMMEDIATE")
            self._check_file()
            return self._connection

    def _give_up(self) -> bool:
        """Leave no transaction behind, or the next could not begin; whether one was rolled back."""
        connection = self._connection
        if connection is None:
            return False
        try:
            return _roll_back(connection)
        except sqlite3.Error:
            self._connection = None
            with contextlib.suppress(sqlite3.Error):
                connection.close()
            return False

    def _check_file(self) -> None:
        """SQLite itself goes on writing to a deleted file, and confirms what nobody will find."""
        if _file_of(self._settings.path) != self._file:
            raise StoreUnavailableError(
                f"the file of {_named(self._settings.store)} was removed or replaced while it was open;"
                " restart hector"
            )


class MemoryDriver:
    """Runs the same operations on a private database in memory, at once, on the event loop.

    Nothing is awaited between the first statement and the last, so no two operations meet.
    """

    shared = False

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256)
        self.connection.execute("PRAGMA foreign_keys=ON")

    async def write(
        self,
        make: MakeOperation[T],
        at_once: MakeOperation[T | None] | None = None,
        *,
        group: Hashable = None,
    ) -> T:
        self.connection.execute("BEGIN")
        try:
            with translated():
                outcome = run(self.connection, make())
        except BaseException:
            _roll_back(self.connection)
            raise
        self.connection.execute("COMMIT")
        return outcome

    async def read(self, make: MakeOperation[T]) -> T:
        with translated():
            return run(self.connection, make())

    async def close(self) -> None:
        self.connection.close()

    def time_argument(self, moment: datetime) -> str:
        return time_argument(moment)


def time_argument(moment: datetime) -> str:
    """As `now()` writes it, so that texts compare as times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _roll_back(connection: sqlite3.Connection) -> bool:
    if not connection.in_transaction:
        return False
    connection.execute("ROLLBACK")
    return True


def _uncommitted(error: sqlite3.Error, store: str, *, rolled_back: bool) -> StorageError:
    """What a failed COMMIT means to those whose work was in it."""
    if rolled_back and _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
        failure: StorageError = _translate(error, store)
    else:
        failure = OutcomeUnknownError(
            f"{_named(store)} did not confirm a commit ({error}), so its outcome is not known;"
            " the same request is safe to repeat"
        )
    failure.__cause__ = error
    return failure


def _file_of(path: Path) -> tuple[int, int] | None:
    """Which file stands under the path; None for none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _resolve(batch: list[_Job], outcomes: list[Any]) -> None:
    for job, outcome in zip(batch, outcomes, strict=True):
        if job.future.done():  # its caller was cancelled
            continue
        if isinstance(outcome, BaseException):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
