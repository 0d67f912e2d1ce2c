"""PostgreSQL: statements on one asyncpg connection, and its errors as ours."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Literal

import asyncpg
from asyncpg import exceptions as pg
from sqlalchemy.dialects.postgresql import asyncpg as sqlalchemy_asyncpg

from hector.domain.errors import StorageError, StoreUnavailableError
from hector.storage.operations import Language, Result, Step
from hector.storage.postgres.connect import PostgresLink
from hector.storage.postgres.connect import connect as open_link
from hector.storage.postgres.migrate import upgrade_postgres
from hector.storage.server.driver import GRACE, CollisionError, ConnectionLostError
from hector.storage.settings import ServerSettings

_BEGIN = {
    "write": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "read": "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
}
DIALECT = sqlalchemy_asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it out


async def prepare(
    settings: ServerSettings, patient: ServerSettings
) -> Callable[[], Awaitable["PostgresConnection"]]:
    """Bring the schema up to date with the patient settings; returns how to connect with the others.

    Raises `StoreOpenError`.
    """
    link = await open_link(patient)
    try:
        schema = await upgrade_postgres(link.connection, patient)
    finally:
        link.connection.terminate()

    async def connect() -> PostgresConnection:
        return PostgresConnection(
            await open_link(settings), settings.store, schema, settings.statement_timeout
        )

    return connect


class PostgresConnection:
    """Implements `server.Connection`."""

    def __init__(self, link: PostgresLink, store: str, schema: str, statement_timeout: float) -> None:
        self._connection = link.connection
        self._store = store
        self.schema = schema
        self._language = Language(DIALECT, schema)
        # Behind a pooler each transaction may run on another of the server's sessions: what is kept
        # in one, as prepared statements and settings are, cannot be relied upon.
        self.autocommits = not link.pooled
        self._local = link.local_settings_sql if link.pooled else ""
        self._prepared: dict[str, asyncpg.prepared_stmt.PreparedStatement[Any]] = {}
        self._timeout = statement_timeout + GRACE
        self.in_transaction = False

    @property
    def usable(self) -> bool:
        return not self._connection.is_closed()

    async def begin(self, kind: Literal["write", "read"]) -> None:
        self.in_transaction = True
        await self._command(f"{_BEGIN[kind]};{self._local}" if self._local else _BEGIN[kind])

    async def run(self, steps: Sequence[Step]) -> Sequence[Result]:
        return [await self._run(step) for step in steps]

    async def _run(self, step: Step) -> Result:
        text, arguments = step.statement.bind(self._language, step.parameters)
        with self._translated():
            statement = self._prepared.get(text)
            if statement is None:
                statement = await self._prepare(text)
            rows = await statement.fetch(*arguments, timeout=self._timeout)
        # "UPDATE 1", "INSERT 0 1", "SELECT 20"
        return Result(rows, int(statement.get_statusmsg().rpartition(" ")[2]))

    async def commit(self) -> None:
        await self._command("COMMIT")
        self.in_transaction = False

    async def roll_back(self) -> None:
        if self.usable:
            with contextlib.suppress(ConnectionLostError):
                await self._command("ROLLBACK")
                self.in_transaction = False

    async def listen(self, channel: str, heard: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Be told what other connections notify on a channel, and once that this one has ended."""
        mine = self._connection.get_server_pid()

        def told(_: object, pid: int, __: str, payload: str) -> None:
            if pid != mine:
                heard(payload)

        self._connection.add_termination_listener(lambda _: lost())
        with self._translated():
            await self._connection.add_listener(channel, told)

    async def close(self) -> None:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._connection.close()

    def abort(self) -> None:
        self._connection.terminate()

    async def _prepare(self, text: str) -> "asyncpg.prepared_stmt.PreparedStatement[Any]":
        if not self.autocommits:
            # Without a name it is gone with the next one.
            return await self._connection.prepare(text, name="", timeout=self._timeout)
        # With a name of ours: where asyncpg has no cache it gives none, and has it parsed again each time.
        name = f"hector_{len(self._prepared)}"
        statement = await self._connection.prepare(text, name=name, timeout=self._timeout)
        self._prepared[text] = statement
        return statement

    async def _command(self, text: str) -> None:
        with self._translated():
            await self._connection.execute(text, timeout=self._timeout)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (pg.UniqueViolationError, pg.DeadlockDetectedError, pg.SerializationError) as error:
            raise CollisionError(type(error).__name__) from error
        except _LOST as error:
            self.abort()
            raise ConnectionLostError(type(error).__name__) from error
        except asyncpg.PostgresError as error:
            raise self._ours(error) from error

    def _ours(self, error: asyncpg.PostgresError) -> StorageError:
        name = f"session store {self._store!r}"
        match error:
            case pg.LockNotAvailableError():
                return StoreUnavailableError(
                    f"{name}: another transaction held a session for too long; try again"
                )
            case pg.QueryCanceledError():
                return StoreUnavailableError(
                    f"{name} took longer than its statement_timeout ({self._timeout - GRACE:g} s); try again"
                )
            case pg.ReadOnlySQLTransactionError():
                # A primary that has become a standby: its name may lead to another server by now.
                self.abort()
                return StoreUnavailableError(f"{name} is read-only at the moment; try again")
            case pg.InsufficientResourcesError():
                return StoreUnavailableError(f"{name} is out of resources ({_class_of(error)}); try again")
            case pg.InsufficientPrivilegeError():
                return StorageError(
                    f"{name}: its user lacks a privilege; `hector db grants` prints what is needed"
                )
            case pg.UndefinedTableError() | pg.UndefinedColumnError():
                return StorageError(f"{name}: its schema was changed while it was open; restart hector")
            case _:
                # Without the server's text, which may quote what was said.
                return StorageError(f"{name} failed: {_class_of(error)}")


_LOST = (
    OSError,  # TimeoutError among them
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    pg.PostgresConnectionError,
    pg.AdminShutdownError,
    pg.CrashShutdownError,
    pg.CannotConnectNowError,
    pg.IdleInTransactionSessionTimeoutError,
    # The plan of a statement that was prepared before the schema changed; a new connection makes a new one.
    pg.InvalidCachedStatementError,
    pg.InvalidSQLStatementNameError,
)


def _class_of(error: asyncpg.PostgresError) -> str:
    return f"{type(error).__name__.removesuffix('Error')}, {error.sqlstate}"
