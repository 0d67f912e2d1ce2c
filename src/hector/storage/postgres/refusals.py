"""What PostgreSQL, or a pooler in its place, says to who may not come in, as our errors."""

import asyncio
import ssl

import asyncpg
from asyncpg import exceptions as pg

from hector.domain.errors import StoreOpenError
from hector.storage.grants import quoted
from hector.storage.server.connecting import Server, must_use_tls, one_line, tls_error

_ASK_FOR_TLS = bytes.fromhex("0000000804d2162f")
_ADMIN = "let an administrator run: "


def may_be_without_tls(error: Exception) -> bool:
    """It may come of TLS, so another try without may succeed. A wrong password is not sent again."""
    if isinstance(error, ConnectionRefusedError):
        return False
    return is_refused_by_rule(error) or isinstance(
        error, ConnectionError | ssl.SSLError | pg.PostgresConnectionError
    )


def is_refused_by_rule(error: Exception) -> bool:
    """By pg_hba.conf, most of all; not for a password."""
    return isinstance(error, pg.InvalidAuthorizationSpecificationError) and not isinstance(
        error, pg.InvalidPasswordError
    )


async def why(error: Exception, server: Server, *, with_tls: bool) -> StoreOpenError:
    """The error for a connection that could not be made. May ask the server once more."""
    if broken := tls_error(error):
        return server.tls_failed(broken)
    match error:
        case pg.PostgresConnectionError():
            # A closed connection, or some pooler's own trouble.
            return await _why_closed(server) if error.sqlstate in _CLOSED else _why_said(error, server)
        case asyncpg.PostgresError():
            return _why_said(error, server, with_tls=with_tls)
        case ConnectionRefusedError():
            return server.unreachable(error)
        case ConnectionError():
            return await _why_closed(server)
        case OSError():
            return server.unreachable(error)
        case asyncpg.InterfaceError():
            # Its own words, none of the server's.
            return server.refused(
                f"signing in at {server.address} failed: {one_line(str(error))};"
                " let the server take scram-sha-256"
            )
        case _:
            # Not its text, which may quote what was said.
            return server.refused(f"the answer of {server.name} is not understood ({type(error).__name__})")


def why_not_set_up(error: Exception, server: Server) -> StoreOpenError:
    """The error for a connection that was made, and then failed."""
    if isinstance(error, TimeoutError):
        return server.too_late()
    if not isinstance(error, asyncpg.PostgresError) or error.sqlstate in _CLOSED:
        return server.cut_off()
    # Unknown, a wrong value, not to be changed by a session, not to be changed by this user.
    if error.sqlstate in ("42704", "22023", "55P02", "42501"):
        return server.refused(f"options: {server.name} refuses one of them: {_said(error)}")
    return _why_said(error, server)


# asyncpg gives these classes to what no server said.
_CLOSED = frozenset({"08003", "08006"})


async def _why_closed(server: Server) -> StoreOpenError:
    """Or no yes to the question for TLS, which asyncpg tells in the same way."""
    said = await _ask_for_tls(server)
    if said == b"N" and must_use_tls(server.settings):
        return server.without_tls()
    if said in (b"S", b"N", b"") or said[:1] == b"E":
        return server.cut_off()
    return server.foreign()


async def _ask_for_tls(server: Server) -> bytes:
    """What a server says to that: S or N, or an E and more, if it is PostgreSQL; '' if it says nothing."""
    settings = server.settings
    try:
        if settings.host.startswith("/"):
            reader, writer = await asyncio.open_unix_connection(server.address)
        else:
            reader, writer = await asyncio.open_connection(settings.host, settings.port)
        try:
            writer.write(_ASK_FOR_TLS)
            return await reader.read(16)
        finally:
            writer.transport.abort()
    except OSError:
        return b""


def _said(error: asyncpg.PostgresError) -> str:
    return one_line(str(error.args[0])) if error.args else ""


def _why_said(error: asyncpg.PostgresError, server: Server, *, with_tls: bool = False) -> StoreOpenError:
    settings, said = server.settings, _said(error)
    user, database = quoted(settings.user), quoted(settings.database)
    match error.sqlstate:
        case "28P01":
            return _wrong_password(server)
        case "28000":
            return _not_admitted(said, server, with_tls=with_tls)
        case "3D000":
            return server.refused(
                f"there is no database {settings.database!r} at {server.address};"
                f" {_ADMIN}CREATE DATABASE {database} OWNER {user};"
            )
        case "42501":
            return server.refused(
                f"user {settings.user!r} may not connect to database {settings.database!r};"
                f" {_ADMIN}GRANT CONNECT ON DATABASE {database} TO {user};"
            )
        case "53300":
            return server.full(said)
        case "57P01" | "57P02" | "57P03" | "57P05":
            return server.away(f"{server.name} starts up or shuts down ({said})")
        case "08P01":
            return _why_pooler_said(said, server)
        case str(state) if state[:2] in ("08", "53", "58"):
            return server.away(f"{server.name} cannot serve now ({said}, {state})")
        case state:
            return server.refused(f"{server.name} refuses: {said} ({state})")


def _wrong_password(server: Server) -> StoreOpenError:
    """Which of both it is, no server tells."""
    user = server.settings.user
    statements = (
        f"{_ADMIN}ALTER USER {quoted(user)} PASSWORD '...';"
        f" or, if there is no such user: CREATE USER {quoted(user)} PASSWORD '...';"
    )
    if not server.settings.password:
        return server.refused(
            f"no password is set (an empty one counts as none), and {server.name} wants one of user {user!r};"
            f" set password, or the variable that it comes from, or {statements}"
        )
    return server.refused(
        f"user {user!r} is unknown at {server.address}, or has another password;"
        f" check user and password, or {statements}"
    )


def _not_admitted(said: str, server: Server, *, with_tls: bool) -> StoreOpenError:
    """The server's words may be in any language, but for the names of files."""
    settings = server.settings
    refuses = f"{server.name} does not admit user {settings.user!r}: {said}"
    if "pg_hba.conf" in said:
        tried = "with TLS" if with_tls else "without TLS, which ssl_mode: require would use"
        return server.refused(f"{refuses} (tried {tried}); add a line that lets it in to that file")
    if with_tls and settings.tls.cert is None:
        return server.refused(f"{refuses}; check user, and whether it wants ssl_cert and ssl_key")
    return server.refused(f"{refuses}; check user, its LOGIN there, and pg_hba.conf")


def _why_pooler_said(said: str, server: Server) -> StoreOpenError:
    """PgBouncer tells everything with one class, in English."""
    settings, pooler = server.settings, f"the pooler at {server.address}"
    if "authentication failed" in said or "no such user" in said:
        return _wrong_password(server)
    if "no such database" in said:
        return server.refused(f"{pooler} knows no database {settings.database!r}; add it to its [databases]")
    if "no more connections" in said or "connections exceeded" in said:
        return server.full(said)
    if said == "SSL required":
        return server.refused(f"{pooler} demands TLS; set ssl_mode: require")
    if any(sign in said for sign in ("shutting down", "server_login_retry", "timeout")):
        return server.away(f"{pooler} cannot serve now ({said})")
    return server.refused(f"{pooler} refuses: {said}")
