"""MySQL and MariaDB: statements on one asyncmy connection, and their errors as ours."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Literal

from asyncmy import errors
from asyncmy.connection import PreparedStatement
from sqlalchemy.dialects.mysql import asyncmy as sqlalchemy_asyncmy

from hector.domain.errors import StorageError, StoreUnavailableError, TooLargeError
from hector.storage.mysql.connect import MySqlLink
from hector.storage.mysql.connect import connect as open_link
from hector.storage.mysql.migrate import upgrade_mysql
from hector.storage.mysql.pipeline import Call, execute_together
from hector.storage.operations import Language, Result, Step
from hector.storage.server.driver import GRACE, CollisionError, ConnectionLostError
from hector.storage.settings import ServerSettings

_LANGUAGE = Language(sqlalchemy_asyncmy.dialect(paramstyle="qmark"))
_PACKET_OVERHEAD = 16_384
"""Bytes of a packet besides its texts, amply."""
_SNAPSHOT = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION READ ONLY")

# The servers' numbers of errors: mysqld_error.h, errmsg.h, and MariaDB's own from 1900 to 1999 and from 4000.
_COLLISION = frozenset(
    {
        1020,  # the row was changed after the snapshot
        1062,  # a unique key
        1213,  # deadlock
    }
)
_LOST = frozenset(
    {
        0,  # asyncmy: not connected
        1053,  # the server shuts down
        1077,
        1079,
        1243,  # a prepared statement that is unknown
        1317,  # interrupted
        1615,  # a prepared statement whose tables were changed
        1927,  # killed
        2006,
        2013,
        2014,
        2055,
        4031,  # idle for too long
    }
)
_FULL = frozenset({1021, 1037, 1038, 1041, 1114, 1206, 1461, 3636})
_LOCKED = frozenset({1205, 3572})
_NO_PRIVILEGE = frozenset({1044, 1045, 1142, 1143, 1227})
_NO_TABLE = frozenset({1054, 1146, 1412})
_READ_ONLY = frozenset({1290, 1792, 1836, 4047})
_TOO_SLOW = frozenset({1028, 1969, 3024})


async def prepare(
    settings: ServerSettings, patient: ServerSettings
) -> Callable[[], Awaitable["MySqlConnection"]]:
    """Bring the schema up to date with the patient settings; returns how to connect with the others.

    Raises `StoreOpenError`.
    """
    link = await open_link(patient)
    try:
        await upgrade_mysql(link.connection, patient)
    except BaseException:
        link.connection.close()
        raise
    await close(link)

    async def connect() -> MySqlConnection:
        return MySqlConnection(await open_link(settings), settings.store, settings.statement_timeout)

    return connect


async def close(link: MySqlLink) -> None:
    """With a goodbye, which takes TLS a moment."""
    with contextlib.suppress(OSError, errors.MySQLError):
        await link.connection.ensure_closed()


class MySqlConnection:
    """Implements `server.Connection`. A statement begins a transaction, as the link does not autocommit."""

    autocommits = False

    def __init__(self, link: MySqlLink, store: str, statement_timeout: float) -> None:
        self._link = link
        self._connection = link.connection
        self._max_packet = link.max_allowed_packet - _PACKET_OVERHEAD
        self.in_transaction = False
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._statement_timeout = statement_timeout
        self._prepared: dict[str, PreparedStatement] = {}

    @property
    def usable(self) -> bool:
        # asyncmy tells nobody that the server has said goodbye.
        broken: bool = self._connection._stream_broken  # type: ignore[attr-defined]  # noqa: SLF001
        return self._connection.connected and not broken

    async def begin(self, kind: Literal["write", "read"]) -> None:
        self.in_transaction = True
        if kind == "read":
            for command in _SNAPSHOT:
                await self._command(command)

    async def run(self, steps: Sequence[Step]) -> Sequence[Result]:
        bound = [statement.bind(_LANGUAGE, parameters) for statement, parameters in steps]
        for _, arguments in bound:
            self._check_size(arguments)
        with self._translated():
            calls = [Call(await self._prepare(text), arguments) for text, arguments in bound]
            if self._link.pipelines:
                results = await execute_together(self._connection, calls)
            else:
                results = [await statement.execute(arguments) for statement, arguments in calls]
        return [Result(result.rows or (), result.affected_rows) for result in results]

    async def _prepare(self, text: str) -> PreparedStatement:
        statement = self._prepared.get(text)
        if statement is None:
            statement = self._prepared[text] = await self._connection.prepare(text)  # type: ignore[no-untyped-call]
        return statement

    async def commit(self) -> None:
        try:
            await self._command("COMMIT")
        except StoreUnavailableError:
            raise
        except StorageError as error:
            # The engine failed on the way: how far it came, nobody says.
            self.abort()
            raise ConnectionLostError(str(error)) from error
        self.in_transaction = False

    async def roll_back(self) -> None:
        if self.usable:
            with contextlib.suppress(ConnectionLostError, StorageError):
                await self._command("ROLLBACK")
                self.in_transaction = False
                return
            self.abort()

    async def close(self) -> None:
        await close(self._link)

    def abort(self) -> None:
        self._connection.close()

    async def _command(self, text: str) -> None:
        with self._translated():
            await self._connection.query(text)  # type: ignore[no-untyped-call]

    def _check_size(self, arguments: Sequence[Any]) -> None:
        """The server would cut the connection, and tell nobody why."""
        texts = [each for each in arguments if isinstance(each, str | bytes)]
        if 4 * sum(map(len, texts)) <= self._max_packet:
            return
        size = sum(len(each.encode() if isinstance(each, str) else each) for each in texts)
        if size > self._max_packet:
            raise TooLargeError(
                "message",
                f"takes {size} bytes in session store {self._store!r}, whose server takes {self._max_packet}"
                " (max_allowed_packet); send less, or raise it there",
            )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        # A server that does not answer is told from a slow one by the time alone.
        late = self._loop.call_later(self._statement_timeout + GRACE, self.abort)
        try:
            yield
        except errors.MySQLError as error:
            number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
            if number in _COLLISION:
                raise CollisionError(str(number)) from error
            if number in _LOST:
                self.abort()
                raise ConnectionLostError(str(number)) from error
            raise self._ours(number) from error
        except (OSError, EOFError) as error:
            self.abort()
            raise ConnectionLostError(type(error).__name__) from error
        except BaseException:
            # Broken off in the middle of an answer, whose rest would be taken for that of the next statement.
            self.abort()
            raise
        finally:
            late.cancel()

    def _ours(self, number: int) -> StorageError:
        name = f"session store {self._store!r}"
        if number in _LOCKED:
            return StoreUnavailableError(
                f"{name}: another transaction held a session for too long; try again"
            )
        if number in _TOO_SLOW:
            limit = f"statement_timeout ({self._statement_timeout:g} s)"
            return StoreUnavailableError(f"{name} took longer than its {limit}; try again")
        if number in _READ_ONLY:
            # A primary that has become a replica: its name may lead to another server by now.
            self.abort()
            return StoreUnavailableError(f"{name} is read-only at the moment; try again")
        if number in _FULL:
            return StoreUnavailableError(f"{name} is out of resources (error {number}); try again")
        if number in _NO_PRIVILEGE:
            return StorageError(
                f"{name}: its user lacks a privilege; `hector db grants` prints what is needed"
            )
        if number in _NO_TABLE:
            return StorageError(f"{name}: its schema was changed while it was open; restart hector")
        # Without the server's text, which may quote what was said.
        return StorageError(f"{name} failed: error {number}")
