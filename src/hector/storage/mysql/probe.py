"""What a start would find on a MySQL or MariaDB server."""

from collections.abc import Sequence
from typing import Any

import asyncmy
from asyncmy import errors

from hector.domain.errors import StorageError, StoreOpenError, StoreUnreachableError
from hector.storage.migrate import HECTOR, Found, check_known, next_step
from hector.storage.mysql.connect import MySqlLink, connect
from hector.storage.mysql.connection import close
from hector.storage.mysql.migrate import check_privileges
from hector.storage.mysql.privileges import check_may_change
from hector.storage.settings import ServerSettings

_ABOUT = "SELECT @@innodb_flush_log_at_trx_commit, @@max_connections"
_TLS = "SHOW SESSION STATUS LIKE 'Ssl_version'"
_LARGEST = 16_000_000
"""Bytes; the default of `server.limits.message`."""


async def probe(settings: ServerSettings) -> tuple[str, Found, Sequence[str]]:
    """The server, what is there, and what is doubtful about it. Raises `StoreOpenError`."""
    link = await connect(settings)
    try:
        flush, most = await _row(link.connection, _ABOUT)
        _, tls = await _row(link.connection, _TLS)
        found = await check_privileges(link.connection, settings)
        if settings.auto_migrate:
            await _check_may_change(link, found, settings)
    except (errors.MySQLError, OSError) as error:
        link.connection.close()
        why = f"the connection was lost while it was looked at ({type(error).__name__})"
        raise StoreUnreachableError(settings.store, why) from error
    except BaseException:
        link.connection.close()
        raise
    await close(link)
    product = "MariaDB" if link.is_mariadb else "MySQL"
    server = f"{product} {'.'.join(map(str, link.version))}, {tls or 'without TLS'}"
    doubts = []
    if flush != 1:
        doubts.append(
            f"innodb_flush_log_at_trx_commit is {flush} on the server: a power cut may take the last second"
            " of what was acknowledged; set it to 1"
        )
    if settings.max_conns + 1 > most:
        doubts.append(f"max_conns is {settings.max_conns + 1}, and the server takes {most} (max_connections)")
    if link.max_allowed_packet < _LARGEST:
        doubts.append(
            f"max_allowed_packet is {link.max_allowed_packet} on the server: longer messages are refused"
        )
    return server, found, doubts


async def _check_may_change(link: MySqlLink, found: Found, settings: ServerSettings) -> None:
    try:
        step = next_step(found, HECTOR)
        if step == "migrate":
            check_known(found, HECTOR)  # where it is not, no privilege would help
        await check_may_change(link.connection, settings.database, step, is_mariadb=link.is_mariadb)
    except StorageError as error:
        raise StoreOpenError(settings.store, str(error)) from error


async def _row(connection: asyncmy.Connection, query: str) -> Sequence[Any]:
    async with connection.cursor() as cursor:
        await cursor.execute(query)
        row: Sequence[Any] = await cursor.fetchone()
        return row
