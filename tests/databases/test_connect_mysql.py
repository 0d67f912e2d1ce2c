"""Connecting to MySQL and MariaDB: what they alone have, and how a password is kept."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hector.domain.errors import ServerFullError, StoreOpenError, StoreUnreachableError
from hector.storage.mysql import connect as mysql_connect
from hector.storage.mysql.connect import MySqlLink, connect
from hector.storage.settings import ServerSettings, SslMode, Tls
from tests.databases.impostors import (
    FULL_AUTHENTICATION,
    failure,
    impostor,
    mysql_that_refuses,
    mysql_that_says,
    mysql_with_tls,
    mysql_with_variables,
    switch_to,
)
from tests.servers import Database, MariaDbServer

PASSWORD = "a-password-11223344"


@asynccontextmanager
async def linked(settings: ServerSettings) -> AsyncIterator[MySqlLink]:
    link = await connect(settings)
    try:
        yield link
    finally:
        await link.connection.ensure_closed()


async def run(link: MySqlLink, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    cursor = link.connection.cursor()
    await cursor.execute(statement, arguments or None)
    return list(await cursor.fetchall() or ())


async def shown(link: MySqlLink, *names: str) -> dict[str, Any]:
    ((*values,),) = await run(link, "SELECT " + ", ".join(f"@@{name}" for name in names))
    return dict(zip(names, values, strict=True))


def somewhere(port: int, mode: SslMode = "prefer", **changes: Any) -> ServerSettings:
    settings = ServerSettings("main", "127.0.0.1", port, "hector", "sessions", PASSWORD, tls=Tls(mode))
    return replace(settings, **changes)


# --- a link


async def test_a_link_has_our_settings(worker_mysql_db: Database) -> None:
    async with linked(worker_mysql_db.settings()) as link:
        assert link.is_mariadb
        assert link.version >= (10, 6, 0)
        assert link.max_allowed_packet == 16 * 1024 * 1024
        wanted = {
            "autocommit": 0,
            "character_set_client": "utf8mb4",
            "character_set_connection": "utf8mb4",
            "character_set_results": "utf8mb4",
            "collation_connection": "utf8mb4_nopad_bin",
            "completion_type": "NO_CHAIN",
            "idle_transaction_timeout": 10,
            "innodb_lock_wait_timeout": 20,
            "lock_wait_timeout": 20,
            "max_statement_time": 30,
            "time_zone": "+00:00",
            "tx_isolation": "READ-COMMITTED",
            "wait_timeout": 600,
        }
        assert await shown(link, *wanted) == wanted


async def test_texts_are_compared_as_bytes(worker_mysql_db: Database) -> None:
    async with linked(worker_mysql_db.settings()) as link:
        assert await run(link, "SELECT %s = %s, %s = %s", "a", "a ", "a", "A") == [(0, 0)]


async def test_a_statement_begins_a_transaction(mysql_db: Database) -> None:
    async with linked(mysql_db.settings()) as link, linked(mysql_db.settings()) as other:
        await run(link, "CREATE TABLE t (id INTEGER PRIMARY KEY)")
        await run(link, "INSERT INTO t VALUES (1)")
        assert await run(other, "SELECT id FROM t") == []
        await run(link, "COMMIT")
        assert await run(other, "SELECT id FROM t") == [(1,)]


async def test_an_update_counts_the_rows_that_it_finds(mysql_db: Database) -> None:
    async with linked(mysql_db.settings()) as link:
        await run(link, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
        await run(link, "INSERT INTO t VALUES (1, 1), (2, 2)")
        cursor = link.connection.cursor()
        assert await cursor.execute("UPDATE t SET n = 1") == 2


async def test_a_bad_value_is_refused_rather_than_bent(mysql_db: Database) -> None:
    async with linked(mysql_db.settings()) as link:
        await run(link, "CREATE TABLE t (name VARCHAR(2))")
        with pytest.raises(Exception, match=r"too long"):
            await run(link, "INSERT INTO t VALUES ('abc')")


async def test_a_server_with_other_defaults_changes_nothing(own_mysql: MariaDbServer) -> None:
    db = await own_mysql.create_database()
    theirs = {
        # With these a text ends its quotes, and a name is a text.
        "sql_mode": "'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT'",
        "init_connect": "'SET NAMES latin1, autocommit = 1'",
        "completion_type": "'CHAIN'",
        "autocommit": "1",
        "tx_isolation": "'SERIALIZABLE'",
        "wait_timeout": "1",
        "innodb_lock_wait_timeout": "1",
    }
    await db.run(*(f"SET GLOBAL {name} = {value}" for name, value in theirs.items()), admin=True)
    async with linked(db.settings()) as link:
        modes = set((await shown(link, "sql_mode"))["sql_mode"].split(","))
        assert "STRICT_ALL_TABLES" in modes
        assert not modes & {"NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "PIPES_AS_CONCAT"}
        ours = {
            "autocommit": 0,
            "character_set_client": "utf8mb4",
            "character_set_results": "utf8mb4",
            "completion_type": "NO_CHAIN",
            "tx_isolation": "READ-COMMITTED",
            "wait_timeout": 600,
        }
        assert await shown(link, *ours) == ours
        for text in ("\\' OR 1=1; -- ", "\\", 'it\'s "quoted"', "%s", "\N{GRINNING FACE}"):
            assert await run(link, "SELECT %s, 1", text) == [(text, 1)]


# --- rules of the server


async def test_a_server_that_is_read_only_is_away_until_it_is_not(own_mysql: MariaDbServer) -> None:
    db = await own_mysql.create_database()
    await db.run("SET GLOBAL read_only = 1", admin=True)
    with pytest.raises(StoreUnreachableError, match=r"is read-only \(read_only is on\), as replicas are"):
        await connect(db.settings())
    await db.run("SET GLOBAL read_only = 0", "SET GLOBAL tx_read_only = 1", admin=True)
    with pytest.raises(StoreOpenError, match=r"tx_read_only is on") as raised:
        await connect(db.settings())
    assert not isinstance(raised.value, StoreUnreachableError)


async def test_accounts_that_may_not_come_in(own_mysql: MariaDbServer) -> None:
    db = await own_mysql.create_database()
    account = f"{db.user}@'%'"
    await db.run(f"ALTER USER {account} ACCOUNT LOCK", admin=True)
    with pytest.raises(StoreOpenError, match=r"is locked; .*ACCOUNT UNLOCK"):
        await connect(db.settings())
    await db.run(f"ALTER USER {account} ACCOUNT UNLOCK PASSWORD EXPIRE", admin=True)
    with pytest.raises(StoreOpenError, match=r"has expired"):
        await connect(db.settings())
    await db.run("SET GLOBAL require_secure_transport = ON", admin=True)
    with pytest.raises(StoreOpenError, match=r"if the account demands TLS, set ssl_mode: require"):
        await connect(db.settings(tls=Tls("disable")))


async def test_an_account_at_localhost_does_not_admit_tcp_where_names_are_not_looked_up(
    own_mysql: MariaDbServer,
) -> None:
    db = await own_mysql.create_database()
    create = "CREATE USER only_here@{} IDENTIFIED BY 'secret-secret'"
    await db.run(create.format("localhost"), admin=True)
    settings = db.settings(user="only_here", password="secret-secret", host="localhost", database="mysql")
    with pytest.raises(StoreOpenError) as raised:
        await connect(settings)
    assert str(raised.value).endswith(
        "; an account at 'localhost' is for its socket alone there: set host to the path of the socket,"
        " or let an administrator run: CREATE USER 'only_here'@'127.0.0.1' IDENTIFIED BY '...';"
        " and grant it the same"
    )
    # Both ways out lead in; what is missing then is a privilege.
    await db.run(create.format("'127.0.0.1'"), admin=True)
    for way in (settings, replace(settings, host=str(db.socket))):
        with pytest.raises(StoreOpenError, match="may not use database 'mysql'"):
            await connect(way)
    with pytest.raises(StoreOpenError) as other:
        await connect(replace(settings, host="127.0.0.1", password="wrong"))
    assert "for its socket alone" not in str(other.value)


async def test_a_server_that_is_full(own_mysql: MariaDbServer) -> None:
    db = await own_mysql.create_database()
    await db.run("SET GLOBAL max_connections = 10", admin=True)
    links = [await connect(db.settings()) for _ in range(10)]
    with pytest.raises(ServerFullError, match=r"takes no more connections"):
        await connect(db.settings())
    for link in links:
        await link.connection.ensure_closed()


async def test_a_database_that_only_an_administrator_would_miss(worker_mysql_db: Database) -> None:
    db = worker_mysql_db
    settings = db.settings(user=db.admin_user, password=db.admin_password, database="nope")
    with pytest.raises(StoreOpenError, match=r"there is no database 'nope'.*CREATE DATABASE `nope`;"):
        await connect(settings)


async def test_a_socket_is_found_in_its_folder(worker_mysql_db: Database, tmp_path: Path) -> None:
    for name in ("mysqld.sock", "mysql.sock"):
        (tmp_path / name).symlink_to(worker_mysql_db.socket)
        async with linked(worker_mysql_db.settings(host=str(tmp_path))) as link:
            assert await run(link, "SELECT 1") == [(1,)]
        (tmp_path / name).unlink()


# --- answers that no server gives at will

AWAY, FULL, NEVER = StoreUnreachableError, ServerFullError, StoreOpenError


@pytest.mark.parametrize(
    ("number", "text", "kind", "why"),
    [
        (1040, "Too many connections", FULL, "no more connections"),
        (1203, "User x already has more than 'max_user_connections'", FULL, "no more connections"),
        (1226, "User 'x' has exceeded the 'max_user_connections' resource", FULL, "no more connections"),
        (1044, "Access denied to database", NEVER, "CREATE DATABASE IF NOT EXISTS `sessions`; GRANT ALL"),
        (1045, "Access denied for user 'x'@'h'", NEVER, "check user and password, .* set ssl_mode: require"),
        (1047, "WSREP has not yet prepared node for application use", AWAY, "cannot serve now"),
        (1049, "Unknown database 'sessions'", NEVER, "CREATE DATABASE `sessions`;"),
        (1053, "Server shutdown in progress", AWAY, "cannot serve now"),
        (1129, "Host 'h' is blocked because of many connection errors", NEVER, "FLUSH HOSTS;"),
        (1130, "Host 'h' is not allowed to connect", NEVER, "CREATE USER 'hector'@'...'"),
        (1135, "Can't create a new thread", AWAY, "cannot serve now"),
        (1698, "Access denied for user 'root'@'localhost'", NEVER, "check user and password"),
        (1820, "You must reset your password", NEVER, "has expired"),
        (
            2059,
            "Authentication plugin 'x' cannot be loaded",
            NEVER,
            "a way to sign in that hector does not know",
        ),
        (3118, "Account is locked", NEVER, "is locked"),
        (3159, "Connections using insecure transport are prohibited", NEVER, "set ssl_mode: require"),
        (4242, "something\nelse", NEVER, r"refuses: something else \(error 4242\)"),
    ],
)
async def test_an_answer(number: int, text: str, kind: type[StoreOpenError], why: str) -> None:
    async with impostor(mysql_that_refuses(number, text)) as at_once:
        with pytest.raises(StoreOpenError, match=why) as first:
            await connect(somewhere(at_once.port))
    async with impostor(mysql_that_says(failure(number, text))) as afterwards:
        with pytest.raises(StoreOpenError, match=why) as second:
            await connect(somewhere(afterwards.port))
    assert type(first.value) is type(second.value) is kind


# --- the password


@pytest.mark.parametrize("mode", ["disable", "prefer"])
@pytest.mark.parametrize(
    ("plugin", "answers"),
    [
        ("mysql_native_password", [switch_to("mysql_clear_password")]),
        ("mysql_native_password", [switch_to("dialog", b"\x04Password: ")]),
        ("mysql_native_password", [switch_to("sha256_password")]),
        ("mysql_native_password", [switch_to("caching_sha2_password"), FULL_AUTHENTICATION]),
        ("caching_sha2_password", [FULL_AUTHENTICATION]),
        ("sha256_password", [switch_to("sha256_password")]),
    ],
)
async def test_the_password_is_not_shown_to_who_asks_without_tls(
    mode: SslMode, plugin: str, answers: list[bytes]
) -> None:
    async with impostor(mysql_that_says(*answers, plugin=plugin)) as found:
        with pytest.raises(StoreOpenError, match=r"in a way that is safe with TLS only; .*ssl_mode: require"):
            await connect(somewhere(found.port, mode))
        assert PASSWORD.encode() not in found.heard
        # Nor is a key asked for, with which it would be encrypted: the last packet has one byte more.
        assert not found.heard.endswith((b"\1\0\0\3\1", b"\1\0\0\3\2", b"\1\0\0\5\2"))


async def test_a_key_that_comes_unasked_is_not_used() -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    async with impostor(mysql_that_says(b"\1" + pem, plugin="sha256_password")) as found:
        with pytest.raises(StoreOpenError, match=r"is not understood"):
            await connect(somewhere(found.port))
        # Nothing after its first packet.
        assert len(found.heard) == 4 + int.from_bytes(found.heard[:3], "little")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_nothing_is_said_to_a_server_without_tls_where_there_must_be_tls(mode: SslMode) -> None:
    async with impostor(mysql_that_says(plugin="caching_sha2_password")) as found:
        with pytest.raises(StoreOpenError, match=f"ssl_mode {mode} wants TLS"):
            await connect(somewhere(found.port, mode))
        assert not found.heard


async def test_a_server_that_promises_tls_and_does_not_speak_it_learns_nothing() -> None:
    async with impostor(mysql_that_says(switch_to("mysql_clear_password"), tls=True)) as found:
        with pytest.raises(StoreOpenError, match=r"TLS with the server at .* failed"):
            await connect(somewhere(found.port, "require"))
        assert PASSWORD.encode() not in found.heard
        assert b"hector" not in found.heard


@pytest.mark.parametrize(
    ("plugin", "answers"),
    [
        ("caching_sha2_password", [FULL_AUTHENTICATION]),
        ("sha256_password", []),
        ("mysql_native_password", [switch_to("mysql_clear_password")]),
    ],
)
async def test_a_server_may_have_the_password_through_tls(
    plugin: str, answers: list[bytes], worker_mysql_db: Database
) -> None:
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = worker_mysql_db.tls.ca.parent
    accepting.load_cert_chain(folder / "server.pem", folder / "server.key")
    async with mysql_with_tls(accepting, *answers, failure(1049, "enough"), plugin=plugin) as found:
        settings = somewhere(found.port, tls=Tls("verify-full", root_cert=worker_mysql_db.tls.ca))
        with pytest.raises(StoreOpenError, match=r"there is no database"):
            await connect(settings)
        assert PASSWORD.encode() + b"\0" in found.heard


async def test_a_server_may_have_the_password_through_a_unix_socket(tmp_path: Path) -> None:
    talk = mysql_that_says(switch_to("mysql_clear_password"), failure(1049, "enough"))
    async with impostor(talk, tmp_path / "mysqld.sock") as found:
        with pytest.raises(StoreOpenError, match=r"there is no database"):
            await connect(somewhere(1, "verify-full", host=str(tmp_path)))
        assert PASSWORD.encode() + b"\0" in found.heard


async def test_a_package_for_signing_in_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with impostor(mysql_that_says(switch_to("client_ed25519", bytes(32)))) as found:
        with pytest.raises(StoreOpenError, match=r"signs in with ed25519 .*: pip install pynacl"):
            await connect(somewhere(found.port))


async def test_an_answer_that_makes_no_sense_is_not_quoted() -> None:
    async with impostor(mysql_that_says(switch_to("mysql_old_password"))) as found:
        with pytest.raises(StoreOpenError, match=r"is not understood \(\w+Error\)$"):
            await connect(somewhere(found.port))


# --- kinds of server

MYSQL = {
    "version": "8.0.36-0ubuntu0.22.04.1",
    "version_comment": "(Ubuntu)",
    "max_allowed_packet": "67108864",
}


async def test_mysql_gets_its_own_settings() -> None:
    async with impostor(mysql_with_variables(MYSQL)) as found:
        link = await connect(somewhere(found.port, statement_timeout=7.5))
        link.connection.close()
    assert (link.is_mariadb, link.version) == (False, (8, 0, 36))
    assert link.max_allowed_packet == 64 * 1024 * 1024
    said = found.heard.decode(errors="replace")
    for setting in (
        "transaction_isolation = 'READ-COMMITTED'",
        "max_execution_time = 7500",
        "collation_connection = 'utf8mb4_0900_bin'",
        "innodb_lock_wait_timeout = 6",
        "wait_timeout = 60",
    ):
        assert setting in said
    for name in ("max_statement_time", "tx_isolation", "idle_transaction_timeout"):
        assert name not in said.rpartition("SET SESSION")[2]


@pytest.mark.parametrize(("statement", "lock"), [(1, 1), (2, 1), (9, 7), (30, 20)])
async def test_a_wait_for_a_lock_is_shorter_than_a_statement_in_whole_seconds(
    statement: float, lock: int
) -> None:
    async with impostor(mysql_with_variables(MYSQL)) as found:
        link = await connect(somewhere(found.port, statement_timeout=statement))
        link.connection.close()
    assert f"innodb_lock_wait_timeout = {lock}," in found.heard.decode(errors="replace")


@pytest.mark.parametrize(("more", "pipelines"), [({}, True), ({"aurora_version": "3.04.0"}, False)])
async def test_aurora_is_asked_one_thing_at_a_time(more: dict[str, str], pipelines: bool) -> None:
    async with impostor(mysql_with_variables(MYSQL | more)) as found:
        link = await connect(somewhere(found.port))
        link.connection.close()
    assert link.pipelines == pipelines


async def test_a_new_mariadb_calls_isolation_by_its_new_name() -> None:
    variables = MYSQL | {"version": "11.4.2-MariaDB-log"}
    async with impostor(mysql_with_variables(variables)) as found:
        link = await connect(somewhere(found.port))
        link.connection.close()
    assert (link.is_mariadb, link.version) == (True, (11, 4, 2))
    assert b" transaction_isolation = 'READ-COMMITTED'" in found.heard


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"version": "5.7.44"}, r"is MySQL 5\.7\.44; hector needs 8\.0\.17 or newer"),
        ({"version": "8.0.16"}, r"is MySQL 8\.0\.16; hector needs 8\.0\.17 or newer"),
        ({"version": "10.5.29-MariaDB"}, r"is MariaDB 10\.5\.29; hector needs 10\.6\.0 or newer"),
        ({"version": "5.5.5", "version_comment": "mariadb.org"}, r"is MariaDB 5\.5\.5; hector needs"),
        ({"version": "none"}, "has a version that is not understood: 'none'"),
        ({"super_read_only": "ON"}, r"is read-only \(super_read_only is on\)"),
        ({"innodb_read_only": "1"}, r"is read-only \(innodb_read_only is on\)"),
        ({"transaction_read_only": "ON"}, "transaction_read_only is on"),
    ],
)
async def test_a_server_that_will_not_do(variables: dict[str, str], why: str) -> None:
    async with impostor(mysql_with_variables(MYSQL | variables)) as found:
        with pytest.raises(StoreOpenError, match=why):
            await connect(somewhere(found.port))


def test_numbers_are_options_as_they_are_and_texts_are_quoted() -> None:
    assert mysql_connect._value("12") == "12"
    assert mysql_connect._value("-1.5") == "-1.5"
    assert mysql_connect._value("1; 2") == "'1; 2'"
    assert mysql_connect._value("it's \\") == "'it''s \\\\'"
