"""A connection to PostgreSQL that is ready for use, or the reason why there is none."""

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import asyncpg

from hector.domain.errors import StoreOpenError
from hector.storage.postgres.refusals import is_refused_by_rule, may_be_without_tls, why, why_not_set_up
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

_OLDEST = 13
# A pooler keeps these two for each of its clients, and refuses others.
_STARTUP = {"application_name": "hector", "timezone": "UTC"}
_FIXED = frozenset(
    {
        "client_encoding",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "statement_timeout",
        "timezone",
    }
)
_PLANS = {
    # Each statement has one good plan, by key, whoever asks. Planned for each call by what is known of one
    # session, the end of a history was at times read by a scan and a sort of all of it.
    "plan_cache_mode": "force_generic_plan",
    # To a server that was told last that a table is empty, a scan is the best plan.
    "enable_seqscan": "off",
}
# For the server, what `notice_silence` does for us. A machine that lost its power or its network says
# nothing: its connections, up to `max_conns`, would otherwise count for two hours.
_NOTICE_SILENCE = {
    # In seconds, but the last.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")
_FACTS = """
SELECT pg_catalog.pg_backend_pid() AS pid,
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.current_setting('server_version_num')::integer AS number,
    pg_catalog.pg_is_in_recovery() AS standby,
    pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
    pg_catalog.current_setting('synchronous_commit') AS synchronous_commit,
    pg_catalog.current_setting('tcp_keepalives_idle', true) IS NOT NULL
        AND pg_catalog.current_setting('tcp_user_timeout', true) IS NOT NULL AS notices_silence
"""


@dataclass(frozen=True, slots=True)
class PostgresLink:
    connection: "asyncpg.Connection[Any]"
    pooled: bool
    """A pooler stands before the server. Each transaction may run on another of the server's sessions, which
    other clients use, too: nothing may be set or prepared there that outlasts a transaction."""
    local_settings_sql: str
    """Where pooled, the statement that must follow each BEGIN; else ''."""


async def connect(settings: ServerSettings) -> PostgresLink:
    """Raises `StoreOpenError`; where a later try may succeed, `StoreUnreachableError`."""
    server = _server(settings)
    check_texts(settings)
    wanted = session_settings(settings)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            connection = await _open(server)
            try:
                notice_silence(connection._transport)  # noqa: SLF001  # asyncpg has no other way to it
                return await _set_up(connection, wanted, server)
            except BaseException:
                connection.terminate()
                raise
    except TimeoutError as error:
        raise server.too_late() from error


def session_settings(settings: ServerSettings) -> Mapping[str, str]:
    """The server's settings for our sessions, by name.

    Raises `StoreOpenError` for an option that may not be set.
    """
    for name in settings.options:
        if not _SETTING.fullmatch(name):
            raise StoreOpenError(settings.store, f"options: {name!r} is no name of a setting")
        if name.lower() in _FIXED:
            raise StoreOpenError(settings.store, f"options.{name}: hector sets this itself; remove it")
    return {
        **_PLANS,
        "default_transaction_isolation": "read committed",
        "idle_in_transaction_session_timeout": _milliseconds(idle_transaction_timeout(settings)),
        "lock_timeout": _milliseconds(lock_timeout(settings)),
        "statement_timeout": _milliseconds(settings.statement_timeout),
        **{name.lower(): value for name, value in settings.options.items()},
    }


def _server(settings: ServerSettings) -> Server:
    if settings.host.startswith("/"):
        found = Path(settings.host)
        address = str(found if ".s.PGSQL." in found.name else found / f".s.PGSQL.{settings.port}")
    else:
        address = host_and_port(settings)
    return Server(settings, "PostgreSQL", address, f"pg_isready -h {settings.host} -p {settings.port}")


async def _open(server: Server) -> "asyncpg.Connection[Any]":
    settings = server.settings
    first: Exception | None = None
    # Not only its own errors: asyncpg lets through whatever a wrong answer leads it to.
    if uses_tls(settings):
        tls = context(settings.tls, settings.store)
        try:
            return await _sign_in(settings, tls or False)
        except Exception as error:
            if must_use_tls(settings) or not may_be_without_tls(error):
                raise await why(error, server, with_tls=True) from error
            first = error
    try:
        return await _sign_in(settings, False)
    except Exception as error:
        if first and is_refused_by_rule(first) and is_refused_by_rule(error):
            # What was preferred, and why it was not to be.
            raise await why(first, server, with_tls=True) from first
        raise await why(error, server, with_tls=False) from error


async def _sign_in(
    settings: ServerSettings, tls: ssl.SSLContext | Literal[False]
) -> "asyncpg.Connection[Any]":
    return await asyncpg.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password,
        database=settings.database,
        ssl=tls,
        server_settings=_STARTUP,
        # Statements that are kept need names, which a pooler may not know.
        statement_cache_size=0,
        # These would be read from the environment.
        direct_tls=False,
        target_session_attrs="any",
        gsslib="gssapi",
        # The caller's business.
        timeout=None,
    )


async def _set_up(
    connection: "asyncpg.Connection[Any]", wanted: Mapping[str, str], server: Server
) -> PostgresLink:
    try:
        # Outside of a transaction a pooler might change the session between two messages.
        async with connection.transaction():
            facts = await connection.fetchrow(_FACTS)
        _check(facts, server)
        wanted = {"synchronous_commit": _durable(facts["synchronous_commit"]), **wanted}
        # A pooler gives its clients numbers of its own, by which it knows what they want to cancel.
        if facts["pid"] == connection.get_server_pid():
            if facts["notices_silence"]:  # not everything that speaks PostgreSQL's language can
                wanted = {**_NOTICE_SILENCE, **wanted}
            await connection.execute(_set_all(wanted, local=False))
            return PostgresLink(connection, pooled=False, local_settings_sql="")
        local = _set_all(wanted, local=True)
        async with connection.transaction():
            await connection.execute(local)  # a wrong option is told now
        return PostgresLink(connection, pooled=True, local_settings_sql=local)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise why_not_set_up(error, server) from error


def _check(facts: Mapping[str, Any], server: Server) -> None:
    settings = server.settings
    if facts["number"] < _OLDEST * 10_000:
        raise server.refused(
            f"{server.name} is PostgreSQL {facts['version']}; hector needs {_OLDEST} or newer"
        )
    if facts["standby"]:
        # It may be promoted, or its name may lead to the primary again.
        raise server.away(f"{server.name} is a standby, which is read-only; set host to its primary")
    if facts["read_only"]:
        raise server.refused(
            f"user {settings.user!r} may only read database {settings.database!r}:"
            f" default_transaction_read_only is on at {server.address}, for all, the database, or the user"
        )


def _durable(synchronous_commit: str) -> str:
    """What is acknowledged is on the disk; on standbys, too, where the server asks for that."""
    return "on" if synchronous_commit in ("off", "local") else synchronous_commit


def _set_all(settings: Mapping[str, str], *, local: bool) -> str:
    """For the transaction, or for the session."""
    calls = [
        f"pg_catalog.set_config({_literal(name)}, {_literal(value)}, {local})"
        for name, value in settings.items()
    ]
    return "SELECT " + ", ".join(calls)


def _literal(text: str) -> str:
    """Whatever standard_conforming_strings says."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
