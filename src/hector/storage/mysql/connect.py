"""A connection to MySQL or MariaDB that is ready for use, or the reason why there is none."""

import asyncio
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import asyncmy
from asyncmy import errors
from asyncmy.constants import CLIENT

from hector.domain.errors import StoreOpenError
from hector.storage.mysql.guard import GuardedConnection
from hector.storage.mysql.refusals import why, why_no_options, why_not_set_up
from hector.storage.server.connecting import (
    Server,
    check_texts,
    host_and_port,
    must_use_tls,
    notice_silence,
    uses_tls,
)
from hector.storage.server.time_limits import idle_transaction_timeout, lock_timeout
from hector.storage.server.tls import context
from hector.storage.settings import ServerSettings

Version: TypeAlias = tuple[int, int, int]

_OLDEST_MARIADB: Version = (10, 6, 0)
_OLDEST_MYSQL: Version = (8, 0, 17)
"""The first with a collation that compares bytes and does not pad."""
_SOCKETS = ("mysqld.sock", "mysql.sock")
_FIXED = frozenset(
    {
        "autocommit",
        "character_set_client",
        "character_set_connection",
        "character_set_results",
        "collation_connection",
        "completion_type",
        "max_execution_time",
        "max_statement_time",
        "sql_mode",
        "time_zone",
        "transaction_isolation",
        "transaction_read_only",
        "tx_isolation",
        "tx_read_only",
    }
)
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
# Unknown ones are left out of the answer, so both kinds of server can be asked.
_FACTS = """
SHOW SESSION VARIABLES WHERE Variable_name IN ('version', 'version_comment', 'max_allowed_packet',
    'read_only', 'super_read_only', 'innodb_read_only', 'tx_read_only', 'transaction_read_only',
    'aurora_version')
"""
_READ_ONLY_SERVER = ("read_only", "super_read_only", "innodb_read_only")
_READ_ONLY_SESSION = ("tx_read_only", "transaction_read_only")
# Values are taken as they are, or refused. What is left out matters, too: asyncmy escapes with backslashes,
# so with NO_BACKSLASH_ESCAPES a text could end its own quotes; with ANSI_QUOTES, PIPES_AS_CONCAT and others
# the same statement means something else.
_SQL_MODE = "STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_LONGEST_IDLE = 600
"""Seconds. Of a machine that vanished without a word the server learns by nothing else for hours."""
_LONGEST_IDLE_MYSQL = 60
"""Seconds. MySQL has no other limit to an idle transaction, which would hold a session's row."""


@dataclass(frozen=True, slots=True)
class MySqlLink:
    """It does not commit by itself: a statement begins a transaction, COMMIT or ROLLBACK ends it."""

    connection: asyncmy.Connection
    is_mariadb: bool
    version: Version
    max_allowed_packet: int
    """Bytes that the server takes in one message."""
    pipelines: bool
    """It takes further statements before it has answered the first."""


async def connect(settings: ServerSettings) -> MySqlLink:
    """Raises `StoreOpenError`; where a later try may succeed, `StoreUnreachableError`."""
    check_texts(settings)
    options = _options(settings)
    server = _server(settings)
    # The last is the one that is told of.
    tried: list[GuardedConnection] = []
    try:
        async with asyncio.timeout(settings.connect_timeout):
            connection = await _open(server, tried)
            try:
                notice_silence(connection._transport)  # noqa: SLF001  # asyncmy has no other way to it
                return await _set_up(connection, options, server)
            except BaseException:
                connection.close()
                raise
    except TimeoutError as error:
        raise (server.silent() if tried and tried[-1].met_silence else server.too_late()) from error


def _server(settings: ServerSettings) -> Server:
    if not settings.host.startswith("/"):
        ask = f"mysqladmin ping -h {settings.host} -P {settings.port}"
        return Server(settings, "MySQL", host_and_port(settings), ask)
    path = Path(settings.host)
    if path.is_dir():
        found = [path / name for name in _SOCKETS if (path / name).exists()]
        path = found[0] if found else path / _SOCKETS[0]
    return Server(settings, "MySQL", str(path), f"mysqladmin ping -S {path}")


async def _open(server: Server, tried: list[GuardedConnection]) -> GuardedConnection:
    settings = server.settings
    tls = context(settings.tls, settings.store) if uses_tls(settings) else None
    while True:
        connection = GuardedConnection(
            must_use_tls=must_use_tls(settings),
            host=settings.host,
            port=settings.port,
            unix_socket=server.address if settings.host.startswith("/") else None,
            user=settings.user,
            # As bytes: asyncmy would make Latin-1 of a text.
            password=settings.password.encode(),
            database=settings.database,
            charset="utf8mb4",
            # An UPDATE tells how many rows it found, whether or not they held the new values before.
            client_flag=CLIENT.FOUND_ROWS,
            # Set with everything else.
            autocommit=None,
            program_name="hector",
            ssl=tls,
        )
        tried.append(connection)
        try:
            await connection.connect()  # type: ignore[unused-awaitable]  # its stub is wrong
        except Exception as error:
            # Not only its own errors: asyncmy lets through whatever a wrong answer leads it to.
            if must_use_tls(settings) or not connection.failed_by_tls(error):
                raise why(error, connection, server) from error
            tls = None
        else:
            return connection


async def _set_up(connection: GuardedConnection, options: str, server: Server) -> MySqlLink:
    try:
        facts = await _look(connection)
        link = _link(connection, facts, server)
        _check(link, facts, server)
        await connection.set_session(_session_settings(link, server.settings))
    except (errors.MySQLError, OSError) as error:
        raise why_not_set_up(error, connection, server) from error
    if options:
        try:
            await connection.set_session(options)
        except (errors.MySQLError, OSError) as error:
            raise why_no_options(error, server) from error
    return link


async def _look(connection: GuardedConnection) -> Mapping[str, str]:
    cursor = connection.cursor()
    await cursor.execute(_FACTS)
    return {name.lower(): value for name, value in await cursor.fetchall()}


def _link(connection: GuardedConnection, facts: Mapping[str, str], server: Server) -> MySqlLink:
    # Not the handshake's: there MariaDB calls itself 5.5.5, and a proxy whatever it likes.
    told = facts.get("version", "")
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", told)
    if not found:
        raise server.refused(f"{server.name} has a version that is not understood: {told[:80]!r}")
    return MySqlLink(
        connection,
        is_mariadb="mariadb" in (told + facts.get("version_comment", "")).lower(),
        version=(int(found[1]), int(found[2]), int(found[3] or 0)),
        max_allowed_packet=int(facts["max_allowed_packet"]),
        # Aurora may leave unread what came early; MariaDB's Connector/J knows better there, too.
        pipelines="aurora_version" not in facts,
    )


def _check(link: MySqlLink, facts: Mapping[str, str], server: Server) -> None:
    oldest = _OLDEST_MARIADB if link.is_mariadb else _OLDEST_MYSQL
    if link.version < oldest:
        product = "MariaDB" if link.is_mariadb else "MySQL"
        raise server.refused(
            f"{server.name} is {product} {'.'.join(map(str, link.version))};"
            f" hector needs {'.'.join(map(str, oldest))} or newer"
        )
    if on := _first_on(_READ_ONLY_SERVER, facts):
        # A replica may be promoted, or its name may lead to the primary again.
        raise server.away(
            f"{server.name} is read-only ({on} is on), as replicas are; set host to its primary"
        )
    if on := _first_on(_READ_ONLY_SESSION, facts):
        raise server.refused(f"transactions at {server.address} are read-only: {on} is on there")


def _first_on(names: tuple[str, ...], facts: Mapping[str, str]) -> str | None:
    return next((name for name in names if facts.get(name, "OFF") not in ("OFF", "0")), None)


def _session_settings(link: MySqlLink, settings: ServerSettings) -> str:
    # Whole seconds; never up, so that it ends before the statement does.
    lock = max(1, math.floor(lock_timeout(settings)))
    kind = _mariadb_session(link.version, settings) if link.is_mariadb else _mysql_session(settings)
    values: dict[str, Any] = {
        # Named again, as servers can be told to pass over what a client says at the handshake.
        "character_set_client": "utf8mb4",
        "character_set_results": "utf8mb4",
        "sql_mode": _SQL_MODE,
        "time_zone": "+00:00",
        "autocommit": 0,
        "completion_type": 0,
        "innodb_lock_wait_timeout": lock,
        "lock_wait_timeout": lock,
        **kind,
    }
    return ", ".join(f"{name} = {_value(value)}" for name, value in values.items())


def _mariadb_session(version: Version, settings: ServerSettings) -> dict[str, Any]:
    isolation = "transaction_isolation" if version >= (11, 1, 1) else "tx_isolation"
    return {
        "collation_connection": "utf8mb4_nopad_bin",
        isolation: "READ-COMMITTED",
        "max_statement_time": settings.statement_timeout,
        "idle_transaction_timeout": max(1, round(idle_transaction_timeout(settings))),
        "wait_timeout": _LONGEST_IDLE,
    }


def _mysql_session(settings: ServerSettings) -> dict[str, Any]:
    return {
        "collation_connection": "utf8mb4_0900_bin",
        "transaction_isolation": "READ-COMMITTED",
        # Milliseconds, and of SELECT only.
        "max_execution_time": round(settings.statement_timeout * 1000),
        "wait_timeout": _LONGEST_IDLE_MYSQL,
    }


def _options(settings: ServerSettings) -> str:
    """As `set_session` takes them, for a session whose sql_mode is ours; '' for none."""
    for name in settings.options:
        if not _SETTING.fullmatch(name):
            raise StoreOpenError(settings.store, f"options: {name!r} is no name of a setting")
        if name.lower() in _FIXED:
            raise StoreOpenError(settings.store, f"options.{name}: hector sets this itself; remove it")
    return ", ".join(f"{name} = {_value(value)}" for name, value in settings.options.items())


def _value(value: float | str) -> str:
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
