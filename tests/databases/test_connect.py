"""Connecting, on both servers: what a connection is, and what is said when there is none."""

import asyncio
import datetime as dt
import socket
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncmy.errors
import asyncpg
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hector.domain.errors import ServerFullError, StoreOpenError, StoreUnreachableError
from hector.storage.mysql import connect as mysql_connect
from hector.storage.postgres import connect as postgres_connect
from hector.storage.settings import ServerSettings, SslMode, Tls
from tests.databases.impostors import (
    Talk,
    hangs_up,
    impostor,
    mysql_that_hangs_up_in_the_handshake,
    postgres_that_hangs_up_in_the_handshake,
    says_nothing,
    secure_shell,
    web_server,
)
from tests.servers import Database, DatabaseServer, Driver


@dataclass(frozen=True, slots=True)
class Client:
    """One interface over both kinds of connection."""

    driver: Driver
    connection: Any

    async def run(self, statement: str) -> list[tuple[Any, ...]]:
        if self.driver == "postgres":
            return [tuple(row) for row in await self.connection.fetch(statement)]
        cursor = self.connection.cursor()
        await cursor.execute(statement)
        return list(await cursor.fetchall() or ())

    async def is_encrypted(self) -> bool:
        if self.driver == "postgres":
            ((found,),) = await self.run("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return bool(found)
        ((_, cipher),) = await self.run("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        return bool(cipher)

    async def close(self) -> None:
        if self.driver == "postgres":
            await self.connection.close()
        else:
            await self.connection.ensure_closed()


async def open_client(driver: Driver, settings: ServerSettings) -> Client:
    if driver == "postgres":
        return Client(driver, (await postgres_connect.connect(settings)).connection)
    return Client(driver, (await mysql_connect.connect(settings)).connection)


@asynccontextmanager
async def connected(driver: Driver, settings: ServerSettings) -> AsyncIterator[Client]:
    client = await open_client(driver, settings)
    try:
        yield client
    finally:
        await client.close()


async def refusal(driver: Driver, settings: ServerSettings) -> StoreOpenError:
    with pytest.raises(StoreOpenError) as raised:
        await open_client(driver, settings)
    assert str(raised.value).startswith("failed to connect to session store 'main': ")
    assert_keeps_the_password(raised.value, settings.password)
    return raised.value


def assert_keeps_the_password(error: BaseException, password: str) -> None:
    texts = [repr(error), *traceback.format_exception(error)]
    found: BaseException | None = error
    while found:
        texts += [
            str(found),
            repr(found),
            repr(found.args),
            repr(vars(found) if hasattr(found, "__dict__") else ""),
        ]
        found = found.__cause__ or found.__context__
    # Its last characters stand nowhere else, and no way of quoting changes them.
    assert not [text for text in texts if len(password) > 8 and password[-8:] in text]


@pytest.fixture(scope="session")
def server_without_tls(database_server: DatabaseServer, request: pytest.FixtureRequest) -> DatabaseServer:
    found: DatabaseServer = request.getfixturevalue(f"{database_server.driver}_without_tls")
    return found


@pytest.fixture
async def db_without_tls(server_without_tls: DatabaseServer) -> AsyncIterator[Database]:
    db = await server_without_tls.create_database()
    yield db
    await server_without_tls.drop_database(db)


@pytest.fixture
async def expired_db(
    database_server: DatabaseServer, request: pytest.FixtureRequest
) -> AsyncIterator[Database]:
    server: DatabaseServer = request.getfixturevalue(f"{database_server.driver}_expired")
    db = await server.create_database()
    yield db
    await server.drop_database(db)


@pytest.fixture(scope="session", params=["postgres", "mysql"])
def any_db(request: pytest.FixtureRequest) -> Database:
    """On each server in turn, for tests that change nothing there."""
    found: Database = request.getfixturevalue(f"worker_{request.param}_db")
    return found


# --- what a connection is


async def test_a_connection_is_utf_8_whatever_the_server_thinks(any_db: Database) -> None:
    async with connected(any_db.driver, any_db.settings()) as client:
        assert await client.run("SELECT '\N{GRINNING FACE}\u00e9'") == [("\N{GRINNING FACE}\u00e9",)]


async def test_a_connection_keeps_time_in_utc(any_db: Database) -> None:
    zone = "current_setting('TimeZone')" if any_db.driver == "postgres" else "@@time_zone"
    async with connected(any_db.driver, any_db.settings()) as client:
        assert await client.run(f"SELECT {zone}") in ([("UTC",)], [("+00:00",)])
        ((now,),) = await client.run("SELECT CURRENT_TIMESTAMP")
    # The servers' own zones are hours away.
    off = now.replace(tzinfo=dt.UTC) - dt.datetime.now(dt.UTC)
    assert abs(off) < dt.timedelta(minutes=10)


async def test_a_silent_transaction_ends_before_those_who_wait_for_its_row_give_up(
    server_db: Database,
) -> None:
    await server_db.run(
        "CREATE TABLE places (id INTEGER PRIMARY KEY)", "INSERT INTO places VALUES (1)", admin=True
    )
    if server_db.driver == "postgres":
        await server_db.run(f"GRANT ALL ON places TO {server_db.user}", admin=True)
    settings = server_db.settings(statement_timeout=2.5)
    driver = server_db.driver
    async with connected(driver, settings) as stopped, connected(driver, settings) as waiting:
        for client in (stopped, waiting):
            await client.run("BEGIN")
            assert await client.run("SELECT id FROM places FOR UPDATE") == [(1,)]
        with pytest.raises((asyncpg.InterfaceError, asyncpg.InternalClientError, asyncmy.errors.MySQLError)):
            await stopped.run("SELECT 1")


async def test_a_wait_for_a_lock_ends_before_the_statement_does(any_db: Database) -> None:
    names = {
        "postgres": "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')",
        "mysql": "SELECT @@innodb_lock_wait_timeout, @@max_statement_time",
    }
    for statement_timeout, wanted in (
        (30.0, [("20s", "30s"), (20, 30)]),
        (10.0, [("8s", "10s"), (8, 10)]),
        (3600.0, [("20s", "1h"), (20, 3600)]),
    ):
        settings = any_db.settings(statement_timeout=statement_timeout)
        async with connected(any_db.driver, settings) as client:
            ((lock, statement),) = await client.run(names[any_db.driver])
            assert (lock, statement) in wanted


@pytest.mark.parametrize(
    ("driver", "name", "value", "question"),
    [
        ("postgres", "work_mem", "123kB", "current_setting('work_mem')"),
        ("postgres", "Search_Path", "a, b", "current_setting('search_path')"),
        ("postgres", "hector.note", "it's \\ '; SELECT 1", "current_setting('hector.note')"),
        ("postgres", "synchronous_commit", "off", "current_setting('synchronous_commit')"),
        ("mysql", "group_concat_max_len", "1234", "@@group_concat_max_len"),
        ("mysql", "Sort_Buffer_Size", "65536", "@@sort_buffer_size"),
        ("mysql", "lc_time_names", "de_DE", "@@lc_time_names"),
    ],
)
async def test_an_option_is_set_on_the_session(
    driver: Driver, name: str, value: str, question: str, request: pytest.FixtureRequest
) -> None:
    server: DatabaseServer = request.getfixturevalue(f"{driver}_server")
    db = await server.create_database()
    async with connected(driver, db.settings(options={name: value})) as client:
        ((found,),) = await client.run(f"SELECT {question}")
    assert str(found) == value
    await server.drop_database(db)


async def test_a_host_may_be_the_path_of_a_socket(any_db: Database) -> None:
    # Whatever ssl_mode says: nobody listens there.
    settings = any_db.settings(host=str(any_db.socket), tls=Tls("verify-full"))
    async with connected(any_db.driver, settings) as client:
        assert not await client.is_encrypted()


def test_connections_with_tls_work_on_uvloop(any_db: Database) -> None:
    settings = any_db.settings(tls=Tls("verify-full", root_cert=any_db.tls.ca))

    async def talk() -> bool:
        async with connected(any_db.driver, settings) as client:
            return await client.is_encrypted()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(talk())


# --- ssl_mode


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
async def test_an_ssl_mode_with_a_server_that_has_tls(mode: SslMode, any_db: Database) -> None:
    settings = any_db.settings(tls=Tls(mode, root_cert=any_db.tls.ca))
    async with connected(any_db.driver, settings) as client:
        assert await client.is_encrypted() is (mode != "disable")


@pytest.mark.parametrize("mode", ["disable", "prefer"])
async def test_an_ssl_mode_that_does_without_tls_where_there_is_none(
    mode: SslMode, db_without_tls: Database
) -> None:
    async with connected(db_without_tls.driver, db_without_tls.settings(tls=Tls(mode))) as client:
        assert not await client.is_encrypted()


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_an_ssl_mode_that_wants_tls_where_there_is_none(
    mode: SslMode, db_without_tls: Database
) -> None:
    error = await refusal(db_without_tls.driver, db_without_tls.settings(tls=Tls(mode)))
    assert (
        f"ssl_mode {mode} wants TLS, and the server at 127.0.0.1:{db_without_tls.port} offers none;"
        in str(error)
    )
    assert not isinstance(error, StoreUnreachableError)


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_any_certificate_is_taken_where_none_is_checked(mode: SslMode, expired_db: Database) -> None:
    async with connected(expired_db.driver, expired_db.settings(tls=Tls(mode))) as client:
        assert await client.is_encrypted()


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_another_authority_is_refused(mode: SslMode, any_db: Database) -> None:
    settings = any_db.settings(tls=Tls(mode, root_cert=any_db.tls.other_ca))
    error = await refusal(any_db.driver, settings)
    assert "is not trusted" in str(error)
    assert f"signed by nobody in ssl_root_cert ({any_db.tls.other_ca}); set ssl_root_cert to" in str(error)
    assert not isinstance(error, StoreUnreachableError)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_a_certificate_that_the_system_does_not_trust_is_refused(
    mode: SslMode, any_db: Database
) -> None:
    error = await refusal(any_db.driver, any_db.settings(tls=Tls(mode)))
    assert "signed by nobody whom this system trusts; set ssl_root_cert to" in str(error)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_an_expired_certificate_is_refused(mode: SslMode, expired_db: Database) -> None:
    error = await refusal(expired_db.driver, expired_db.settings(tls=Tls(mode, root_cert=expired_db.tls.ca)))
    assert "has expired; renew it there" in str(error)
    assert not isinstance(error, StoreUnreachableError)


@pytest.mark.skipif("sys.platform != 'linux'", reason="elsewhere 127.0.0.2 is no address")
async def test_only_verify_full_looks_at_the_host(any_db: Database) -> None:
    elsewhere = any_db.settings(host="127.0.0.2")
    for mode in ("require", "verify-ca"):
        tls = Tls(mode, root_cert=any_db.tls.ca)
        async with connected(any_db.driver, replace(elsewhere, tls=tls)) as client:
            assert await client.is_encrypted()
    tls = Tls("verify-full", root_cert=any_db.tls.ca)
    error = await refusal(any_db.driver, replace(elsewhere, tls=tls))
    assert "is for another host" in str(error)
    assert "127.0.0.2" in str(error)
    assert "set host to a name that stands in it" in str(error)


async def test_a_user_who_must_use_tls(database_server: DatabaseServer) -> None:
    db = await database_server.create_database(access="tls")
    for mode in ("prefer", "require"):
        async with connected(db.driver, db.settings(tls=Tls(mode))) as client:
            assert await client.is_encrypted()
    error = await refusal(db.driver, db.settings(tls=Tls("disable")))
    assert "ssl_mode: require" in str(error)
    await database_server.drop_database(db)


async def test_a_user_who_must_show_a_certificate(database_server: DatabaseServer) -> None:
    db = await database_server.create_database(access="certificate")
    for mode in ("prefer", "require", "verify-full"):
        tls = Tls(mode, cert=db.tls.cert, key=db.tls.key, root_cert=db.tls.ca)
        async with connected(db.driver, db.settings(tls=tls)) as client:
            assert await client.is_encrypted()
        error = await refusal(db.driver, db.settings(tls=replace(tls, cert=None, key=None)))
        assert "ssl_cert and ssl_key" in str(error)
    await database_server.drop_database(db)


async def test_a_certificate_may_stand_for_a_password(database_server: DatabaseServer) -> None:
    db = await database_server.create_database(access="certificate_alone")
    tls = Tls("verify-full", cert=db.tls.cert_with_key, root_cert=db.tls.ca)
    async with connected(db.driver, db.settings(tls=tls)) as client:
        assert await client.is_encrypted()
    await refusal(db.driver, db.settings(tls=Tls("require")))
    # Not its user, whom the server keeps.
    await database_server.drop_database(replace(db, user="nobody_else"))


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """That nobody signed."""
    folder = tmp_path_factory.mktemp("own")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hector_cert")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    cert = (
        builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1)).sign(key, hashes.SHA256())
    )
    (folder / "cert").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Tls("require", cert=folder / "cert", key=folder / "key")


async def test_a_client_certificate_that_the_server_does_not_trust_is_told(
    own_certificate: Tls, any_db: Database
) -> None:
    error = await refusal(any_db.driver, any_db.settings(tls=own_certificate))
    # The server's reason may be lost when it closes the connection at once.
    assert "refuses the client certificate in" in str(error) or "distrusts ssl_cert" in str(error)


async def test_prefer_goes_on_without_tls_where_tls_fails(own_certificate: Tls, any_db: Database) -> None:
    settings = any_db.settings(tls=replace(own_certificate, mode="prefer"))
    async with connected(any_db.driver, settings) as client:
        assert not await client.is_encrypted()


async def test_a_fault_in_a_file_is_told_before_anything_is_sent(any_db: Database) -> None:
    tls = Tls("verify-full", root_cert=Path("/nowhere/ca.pem"))
    error = await refusal(any_db.driver, any_db.settings(tls=tls))
    assert str(error).endswith("ssl_root_cert: /nowhere/ca.pem does not exist")


# --- who may not come in


async def test_a_wrong_password(any_db: Database) -> None:
    for password in ("wrong-password-11223344", "", "\u20ac-ungl\u00fccklich-1234"):
        error = await refusal(any_db.driver, any_db.settings(password=password))
        assert repr(any_db.user) in str(error)
        assert ("no password is set (an empty one counts as none), and " in str(error)) == (not password)
        assert "check user and password" in str(error) or not password
        assert not isinstance(error, StoreUnreachableError)


async def test_an_unknown_user(any_db: Database) -> None:
    error = await refusal(any_db.driver, any_db.settings(user="who"))
    assert "'who'" in str(error)
    assert "check user and password" in str(error)
    assert not isinstance(error, StoreUnreachableError)


async def test_a_password_in_any_script_is_taken(server_db: Database) -> None:
    password = "p\u00e4ssw\u00f6rd \u5bc6\u7801 \N{GRINNING FACE} '\"\\ %s"
    quoted = password.replace("'", "''")
    change = {
        "postgres": f"ALTER USER {server_db.user} PASSWORD '{quoted}'",
        "mysql": f"ALTER USER {server_db.user}@'%' IDENTIFIED BY '{quoted.replace(chr(92), chr(92) * 2)}'",
    }
    await server_db.run(change[server_db.driver], admin=True)
    async with connected(server_db.driver, server_db.settings(password=password)) as client:
        assert await client.run("SELECT 1") == [(1,)]


async def test_a_missing_database(any_db: Database) -> None:
    settings = any_db.settings(database='no such `"database')
    error = await refusal(any_db.driver, settings)
    name = {"postgres": '"no such `""database"', "mysql": '`no such ``"database`'}[any_db.driver]
    assert "CREATE DATABASE" in str(error)
    assert name in str(error)
    assert not isinstance(error, StoreUnreachableError)


@pytest.mark.parametrize("key", ["user", "password", "database"])
@pytest.mark.parametrize("value", ["a\0b-12345678", "\udc80-12345678"])
async def test_a_text_that_no_server_takes_is_told_by_its_key(key: str, value: str, any_db: Database) -> None:
    error = await refusal(any_db.driver, any_db.settings(**{key: value}))
    assert str(error).endswith(f"{key}: holds NUL, or bytes that are not UTF-8")


async def test_a_server_that_is_full(database_server: DatabaseServer) -> None:
    db = await database_server.create_database(max_connections=1)
    async with connected(db.driver, db.settings()):
        error = await refusal(db.driver, db.settings())
    assert isinstance(error, ServerFullError)
    assert "takes no more connections" in str(error)
    assert "lower max_conns" in str(error)
    await database_server.drop_database(db)


# --- options


@pytest.mark.parametrize(
    ("driver", "options", "why"),
    [
        ("postgres", {"nope": "1"}, "options: the server at .* refuses one of them: .*nope"),
        ("postgres", {"work_mem": "much"}, "options: .* refuses one of them: .*work_mem.*much"),
        ("postgres", {"max_connections": "9"}, "options: .* refuses one of them: .*max_connections"),
        ("postgres", {"log_statement": "all"}, "options: .* refuses one of them: .*log_statement"),
        ("postgres", {"TimeZone": "Asia/Tokyo"}, "options.TimeZone: hector sets this itself; remove it"),
        ("postgres", {"a = 1; --": "1"}, "options: 'a = 1; --' is no name of a setting"),
        ("mysql", {"nope": "1"}, "options: the server at .* refuses one of them: .*nope"),
        ("mysql", {"sort_buffer_size": "much"}, "options: .* refuses one of them: .*sort_buffer_size"),
        ("mysql", {"max_connections": "9"}, "options: .* refuses one of them: .*max_connections"),
        ("mysql", {"version": "9"}, "options: .* refuses one of them: .*version"),
        ("mysql", {"sql_mode": "NO_BACKSLASH_ESCAPES"}, "options.sql_mode: hector sets this itself"),
        ("mysql", {"a = 1; --": "1"}, "options: 'a = 1; --' is no name of a setting"),
        ("mysql", {"default_storage_engine": "x' , sql_mode = '"}, "options: .* refuses one of them"),
    ],
)
async def test_an_option_that_cannot_be_set(
    driver: Driver, options: dict[str, str], why: str, request: pytest.FixtureRequest
) -> None:
    server: DatabaseServer = request.getfixturevalue(f"{driver}_server")
    db = await server.create_database()
    with pytest.raises(StoreOpenError, match=why) as raised:
        await open_client(driver, db.settings(options=options))
    assert not isinstance(raised.value, StoreUnreachableError)
    await server.drop_database(db)


# --- no server


@pytest.fixture(params=["postgres", "mysql"])
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


def somewhere(**changes: Any) -> ServerSettings:
    settings = ServerSettings("main", "127.0.0.1", 1, "hector", "sessions", "a-password-11223344")
    return replace(settings, **changes)


async def test_an_unknown_host(driver: Driver) -> None:
    error = await refusal(driver, somewhere(host="no-such-host.invalid"))
    assert isinstance(error, StoreUnreachableError)
    assert "host 'no-such-host.invalid' is not known here" in str(error)


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
async def test_a_port_where_nothing_listens(mode: SslMode, driver: Driver) -> None:
    for host in ("127.0.0.1", "localhost"):
        error = await refusal(driver, somewhere(host=host, tls=Tls(mode)))
        assert isinstance(error, StoreUnreachableError)
        assert f"nothing listens at {host}:1 (connection refused); start the server" in str(error)
        ask = {"postgres": f"pg_isready -h {host} -p 1", "mysql": f"mysqladmin ping -h {host} -P 1"}
        assert str(error).endswith(ask[driver])


async def test_a_host_with_several_addresses_is_told_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()

    async def two_addresses(*_: Any, **__: Any) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.1", 1)), (*kind, ("127.0.0.2", 1))]

    monkeypatch.setattr(loop, "getaddrinfo", two_addresses)
    error = await refusal(driver, somewhere(host="db"))
    assert "nothing listens at db:1 (connection refused)" in str(error)


async def test_a_socket_that_is_not_there(driver: Driver, tmp_path: Path) -> None:
    error = await refusal(driver, somewhere(host=str(tmp_path), port=5432))
    assert isinstance(error, StoreUnreachableError)
    name = {"postgres": ".s.PGSQL.5432", "mysql": "mysqld.sock"}[driver]
    assert f"there is no socket {tmp_path / name}; start the server" in str(error)


async def test_a_server_that_does_not_answer(driver: Driver) -> None:
    async with impostor(says_nothing) as found:
        error = await refusal(driver, somewhere(port=found.port, connect_timeout=0.3))
    assert isinstance(error, StoreUnreachableError)
    assert "within connect_timeout (0.3 s)" in str(error)


async def test_a_server_that_hangs(own_server: DatabaseServer) -> None:
    db = await own_server.create_database()
    await own_server.freeze()
    error = await refusal(db.driver, db.settings(connect_timeout=0.5))
    assert isinstance(error, StoreUnreachableError)
    assert "within connect_timeout (0.5 s)" in str(error)
    await own_server.thaw()
    await own_server.stop()
    error = await refusal(db.driver, db.settings())
    assert "nothing listens at" in str(error)
    await own_server.start()
    async with connected(db.driver, db.settings()) as client:
        assert await client.run("SELECT 1") == [(1,)]


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
async def test_a_server_that_hangs_up(mode: SslMode, driver: Driver) -> None:
    async with impostor(hangs_up) as found:
        error = await refusal(driver, somewhere(port=found.port, tls=Tls(mode)))
    assert isinstance(error, StoreUnreachableError)
    assert "closed the connection without a word" in str(error)


async def test_a_server_that_hangs_up_in_the_handshake_of_tls(driver: Driver) -> None:
    talk = {
        "postgres": postgres_that_hangs_up_in_the_handshake,
        "mysql": mysql_that_hangs_up_in_the_handshake,
    }[driver]
    async with impostor(talk) as found:
        error = await refusal(driver, somewhere(port=found.port, tls=Tls("require")))
    assert isinstance(error, StoreUnreachableError)


# Where both wait for the other to speak first, a stranger cannot be told from a server that hangs.
@pytest.mark.parametrize(
    ("driver", "stranger", "modes"),
    [
        ("postgres", web_server, ("disable", "prefer", "require")),
        ("postgres", secure_shell, ("require", "verify-full")),
        ("mysql", secure_shell, ("disable", "prefer", "require")),
    ],
)
async def test_a_port_of_something_else(driver: Driver, stranger: Talk, modes: Sequence[SslMode]) -> None:
    async with impostor(stranger) as found:
        for mode in modes:
            error = await refusal(driver, somewhere(port=found.port, tls=Tls(mode)))
            assert f"what listens at 127.0.0.1:{found.port} is no " in str(error)
            assert "check driver, host and port" in str(error)
            assert not isinstance(error, StoreUnreachableError)


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
async def test_the_port_of_the_other_kind_of_server(
    mode: SslMode, driver: Driver, request: pytest.FixtureRequest
) -> None:
    other: DatabaseServer = request.getfixturevalue(
        {"postgres": "mysql_server", "mysql": "postgres_server"}[driver]
    )
    # A client of MySQL waits for the server's first word, as PostgreSQL does for the client's.
    patience = {"postgres": 10.0, "mysql": 0.3}[driver]
    settings = somewhere(port=other.address.port, tls=Tls(mode), connect_timeout=patience)
    error = await refusal(driver, settings)
    assert "is no PostgreSQL server" in str(error) or "is no MySQL server" in str(error)


async def test_a_cancelled_connect_is_cancelled(driver: Driver) -> None:
    heard = asyncio.Event()

    async def talk(line: Any) -> None:
        heard.set()
        await says_nothing(line)

    async with impostor(talk) as found:
        task = asyncio.create_task(open_client(driver, somewhere(port=found.port, connect_timeout=600)))
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
