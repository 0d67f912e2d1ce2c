"""What MySQL and MariaDB say to who may not come in, as our errors."""

import re

from asyncmy import errors

from hector.domain.errors import StoreOpenError
from hector.storage.grants import literal, quoted
from hector.storage.mysql.guard import GuardedConnection, NoTlsError, UnsafeSignInError
from hector.storage.server.connecting import Server, one_line, tls_error

# The servers' numbers: mysqld_error.h, and MariaDB's own from 1900 to 1999 and from 4000.
_FULL = frozenset(
    {
        1040,  # of all
        1203,  # of this user
        1226,  # ... by his account's limits
    }
)
_AWAY = frozenset(
    {
        1037,  # out of memory, and others of its resources
        1038,
        1041,
        1042,
        1047,  # a Galera node that is not in step
        1053,  # shuts down
        1077,
        1079,
        1135,
        1152,  # the connection broke
        1158,
        1159,
        1160,
        1161,
        1184,
        1317,
        1927,
    }
)
_CLOSED = frozenset({2006, 2013, 2055})
"""asyncmy's own: the stream ended."""
_NO_PLUGIN = frozenset({1251, 2059, 2061})
_ADMIN = "let an administrator run: "


def why(error: Exception, connection: GuardedConnection, server: Server) -> StoreOpenError:
    """The error for a connection that could not be made."""
    match error:
        case NoTlsError():
            return server.without_tls()
        case UnsafeSignInError():
            return server.refused(
                f"{server.name} wants the password of user {server.settings.user!r} in a way that is safe"
                " with TLS only; enable TLS there, and set ssl_mode: require"
            )
    if broken := tls_error(error) or tls_error(connection.broken_by):
        return server.tls_failed(broken)
    number = _number(error)
    if isinstance(error.__cause__, OSError):
        return server.cut_off() if connection.greeted else server.unreachable(error.__cause__)
    if number in _CLOSED:
        return server.cut_off()
    if number is not None:
        return _why_said(number, _said(error), connection, server)
    if not connection.greeted:
        return server.foreign()
    if isinstance(error, RuntimeError) and "pynacl" in str(error):
        return server.refused(
            f"user {server.settings.user!r} signs in with ed25519 at {server.address},"
            " which needs a package that is not installed: pip install pynacl"
        )
    # Not its text, which may quote what was said.
    return server.refused(f"the answer of {server.name} is not understood ({type(error).__name__})")


def why_not_set_up(error: Exception, connection: GuardedConnection, server: Server) -> StoreOpenError:
    """The error for a connection that was made, and then failed."""
    number = _number(error)
    if number is None or number in _CLOSED:
        return server.cut_off()
    return _why_said(number, _said(error), connection, server)


def why_no_options(error: Exception, server: Server) -> StoreOpenError:
    number = _number(error)
    if number is None or number in _CLOSED:
        return server.cut_off()
    return server.refused(f"options: {server.name} refuses one of them: {_said(error)}")


def _why_said(number: int, said: str, connection: GuardedConnection, server: Server) -> StoreOpenError:
    settings = server.settings
    database, user = quoted(settings.database, "`"), f"{literal(settings.user)}@'...'"
    match number:
        case 1045 | 1698:
            return _denied(said, connection, server)
        case 1044:
            return server.refused(
                f"user {settings.user!r} may not use database {settings.database!r} at {server.address},"
                f" or it does not exist ({said}); {_ADMIN}CREATE DATABASE IF NOT EXISTS {database};"
                f" GRANT ALL PRIVILEGES ON {database}.* TO {user};"
            )
        case 1049:
            return server.refused(
                f"there is no database {settings.database!r} at {server.address};"
                f" {_ADMIN}CREATE DATABASE {database};"
            )
        case 1129:
            return server.refused(
                f"{server.name} has blocked this machine after many failed connections ({said});"
                f" {_ADMIN}FLUSH HOSTS;"
            )
        case 1130:
            return server.refused(
                f"{server.name} knows no user who may come from here ({said});"
                f" {_ADMIN}CREATE USER {user} IDENTIFIED BY '...'; with this machine's address"
            )
        case 1820 | 1862:
            return server.refused(
                f"the password of user {settings.user!r} at {server.address} has expired;"
                f" {_ADMIN}ALTER USER {user} IDENTIFIED BY '...';"
            )
        case 3118 | 4151:
            return server.refused(
                f"the account of user {settings.user!r} at {server.address} is locked;"
                f" {_ADMIN}ALTER USER {user} ACCOUNT UNLOCK;"
            )
        case 3159:
            return server.refused(f"{server.name} demands TLS ({said}); set ssl_mode: require")
        case number if number in _FULL:
            return server.full(said)
        case number if number in _AWAY:
            return server.away(f"{server.name} cannot serve now ({said}, error {number})")
        case number if number in _NO_PLUGIN:
            return server.refused(
                f"{server.name} wants a way to sign in that hector does not know ({said});"
                f" {_ADMIN}ALTER USER {user} IDENTIFIED VIA mysql_native_password ..."
            )
        case _:
            return server.refused(f"{server.name} refuses: {said} (error {number})")


def _denied(said: str, connection: GuardedConnection, server: Server) -> StoreOpenError:
    """One answer to a wrong password, a wrong host, and to what an account demands of TLS."""
    tls = server.settings.tls
    if not connection.encrypted:
        more = "; if the account demands TLS, set ssl_mode: require"
    elif tls.cert is None:
        more = "; if the account demands a client certificate, set ssl_cert and ssl_key"
    else:
        more = "; if the account demands a certificate, check that it is the one in ssl_cert"
    if server.settings.host == "localhost" and "@'localhost'" not in said:
        # Under skip_name_resolve, as the image of MariaDB has it, an address is no name.
        more += (
            "; an account at 'localhost' is for its socket alone there: set host to the path of the socket,"
            f" or {_ADMIN}CREATE USER {literal(server.settings.user)}@'{_address(said)}'"
            " IDENTIFIED BY '...'; and grant it the same"
        )
    first = "" if server.settings.password else "no password is set (an empty one counts as none), and "
    return server.refused(
        f"{first}{server.name} does not admit user {server.settings.user!r}: {said};"
        f" check user and password, and that this account may come from this host{more}"
    )


def _address(said: str) -> str:
    """Whence the server sees us: `Access denied for user 'hector'@'127.0.0.1' (using password: YES)`."""
    found = re.search(r"@'([^']+)'", said)
    return found[1] if found else "127.0.0.1"


def _number(error: Exception) -> int | None:
    """None: no server's, and not one that asyncmy gives to what befell the stream."""
    first = error.args[0] if isinstance(error, errors.MySQLError) and error.args else None
    return first if isinstance(first, int) and first else None


def _said(error: Exception) -> str:
    return one_line(str(error.args[1])) if len(error.args) > 1 else ""
