"""Connecting to PostgreSQL: what it alone has, and what PgBouncer changes."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hector.domain.errors import ServerFullError, StoreOpenError, StoreUnreachableError
from hector.storage.opening import open_server
from hector.storage.postgres import connect as postgres_connect
from hector.storage.postgres.connect import PostgresLink, connect, session_settings
from hector.storage.postgres.connection import PostgresConnection
from hector.storage.server.driver import ServerDriver
from hector.storage.settings import ServerSettings, SslMode, Tls
from tests.contract.actor import Actor
from tests.databases.impostors import (
    impostor,
    postgres_that_refuses,
    postgres_that_signs_in_by,
)
from tests.servers import Database, PgBouncer, PostgresServer

OURS = {
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "20s",
    "statement_timeout": "30s",
    "synchronous_commit": "on",
}


@asynccontextmanager
async def linked(settings: ServerSettings) -> AsyncIterator[PostgresLink]:
    link = await connect(settings)
    try:
        yield link
    finally:
        await link.connection.close()


async def shown(link: PostgresLink, *names: str) -> dict[str, str]:
    asked = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    return dict(await link.connection.fetchrow(f"SELECT {asked}"))


def somewhere(port: int, mode: SslMode = "prefer") -> ServerSettings:
    return ServerSettings(
        "main", "127.0.0.1", port, "hector", "sessions", "a-password-11223344", tls=Tls(mode)
    )


# --- a link


async def test_a_link_has_our_settings(worker_postgres_db: Database) -> None:
    async with linked(worker_postgres_db.settings()) as link:
        assert not link.pooled
        assert link.local_settings_sql == ""
        assert await shown(link, *OURS) == OURS
        names = await shown(link, "application_name", "client_encoding", "timezone")
        assert names == {"application_name": "hector", "client_encoding": "UTF8", "timezone": "UTC"}


async def test_the_server_does_not_keep_the_connections_of_a_silent_machine(
    worker_postgres_db: Database,
) -> None:
    limits = {
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "30000",
    }
    async with linked(worker_postgres_db.settings()) as link:
        assert await shown(link, *limits) == limits
    async with linked(worker_postgres_db.settings(options={"tcp_keepalives_idle": "60"})) as link:
        assert await shown(link, "tcp_keepalives_idle") == {"tcp_keepalives_idle": "60"}
    # The system ends those of a Unix socket.
    async with linked(worker_postgres_db.settings(host=str(worker_postgres_db.socket))) as link:
        assert await shown(link, "tcp_keepalives_idle") == {"tcp_keepalives_idle": "0"}


async def test_settings_that_are_not_the_statements_can_be_had(worker_postgres_db: Database) -> None:
    settings = worker_postgres_db.settings(options={"Work_Mem": "1MB"})
    assert session_settings(settings) == {
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "default_transaction_isolation": "read committed",
        "idle_in_transaction_session_timeout": "10000",
        "lock_timeout": "20000",
        "statement_timeout": "30000",
        "work_mem": "1MB",
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("off", "on"),
        ("local", "on"),
        ("on", "on"),
        ("remote_write", "remote_write"),
        ("remote_apply", "remote_apply"),
    ],
)
async def test_a_commit_is_on_the_disk_whatever_the_role_has(
    theirs: str, ours: str, postgres_db: Database
) -> None:
    await postgres_db.run(f"ALTER ROLE {postgres_db.user} SET synchronous_commit = {theirs}", admin=True)
    async with linked(postgres_db.settings()) as link:
        assert await shown(link, "synchronous_commit") == {"synchronous_commit": ours}


async def test_a_role_with_other_defaults_changes_nothing(postgres_db: Database) -> None:
    theirs = {
        "timezone": "Asia/Tokyo",
        "default_transaction_isolation": "serializable",
        "search_path": "nowhere",
        "standard_conforming_strings": "off",
        "statement_timeout": "1h",
        "client_encoding": "LATIN1",
    }
    for name, value in theirs.items():
        await postgres_db.run(f"ALTER ROLE {postgres_db.user} SET {name} = '{value}'", admin=True)
    options = {"hector.note": "a\\'b"}
    async with linked(postgres_db.settings(options=options)) as link:
        assert await shown(link, *OURS) == OURS
        assert (await shown(link, "timezone"))["timezone"] == "UTC"
        assert await link.connection.fetchval("SELECT current_setting('hector.note')") == "a\\'b"
        assert await link.connection.fetchval("SELECT '\u20ac'") == "\u20ac"


async def test_the_environment_of_psql_is_not_ours(
    worker_postgres_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "nowhere.invalid",
        "PGPORT": "1",
        "PGUSER": "who",
        "PGPASSWORD": "what",
        "PGDATABASE": "which",
        "PGSSLMODE": "disable",
        "PGSSLNEGOTIATION": "direct",
        "PGTARGETSESSIONATTRS": "standby",
        "PGGSSLIB": "none",
        "PGSERVICE": "no-such-service",
    }.items():
        monkeypatch.setenv(name, value)
    tls = Tls("require")
    async with linked(worker_postgres_db.settings(tls=tls)) as link:
        assert await link.connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    with pytest.raises(StoreOpenError, match=r"no password is set"):
        await connect(worker_postgres_db.settings(password=""))


# --- rules of the server


async def test_a_user_who_must_not_use_tls(postgres_server: PostgresServer) -> None:
    db = await postgres_server.create_database(access="plain")
    for mode in ("disable", "prefer"):
        async with linked(db.settings(tls=Tls(mode))) as link:
            assert not await link.connection.fetchval(
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            )
    with pytest.raises(StoreOpenError, match=r"pg_hba.conf .* \(tried with TLS\); add a line") as raised:
        await connect(db.settings(tls=Tls("require")))
    assert not isinstance(raised.value, StoreUnreachableError)
    # The second try told more than the first.
    with pytest.raises(StoreOpenError, match=r"check user and password"):
        await connect(db.settings(tls=Tls("prefer"), password="wrong"))
    await postgres_server.drop_database(db)


async def test_of_two_refusals_the_preferred_way_is_told(postgres_server: PostgresServer) -> None:
    db = await postgres_server.create_database(access="certificate")
    with pytest.raises(StoreOpenError, match=r"valid client certificate; .* ssl_cert and ssl_key"):
        await connect(db.settings(tls=Tls("prefer")))
    await postgres_server.drop_database(db)


async def test_a_user_who_may_not_connect_to_the_database(postgres_db: Database) -> None:
    name, user = postgres_db.database, postgres_db.user
    await postgres_db.run(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, {user}", admin=True)
    with pytest.raises(StoreOpenError) as raised:
        await connect(postgres_db.settings())
    assert f'GRANT CONNECT ON DATABASE "{name}" TO "{user}";' in str(raised.value)


async def test_a_role_that_may_not_log_in(postgres_db: Database) -> None:
    await postgres_db.run(f"ALTER ROLE {postgres_db.user} NOLOGIN", admin=True)
    with pytest.raises(StoreOpenError, match=r"not permitted to log in; check user"):
        await connect(postgres_db.settings())


async def test_a_database_that_is_full(postgres_db: Database) -> None:
    await postgres_db.run(f"ALTER DATABASE {postgres_db.database} CONNECTION LIMIT 1", admin=True)
    async with linked(postgres_db.settings()):
        with pytest.raises(ServerFullError, match=r"takes no more connections"):
            await connect(postgres_db.settings())


async def test_a_role_that_may_only_read(postgres_db: Database) -> None:
    await postgres_db.run(f"ALTER ROLE {postgres_db.user} SET default_transaction_read_only = on", admin=True)
    with pytest.raises(
        StoreOpenError, match=r"may only read .*default_transaction_read_only is on"
    ) as raised:
        await connect(postgres_db.settings())
    assert not isinstance(raised.value, StoreUnreachableError)


async def test_a_standby_is_away_until_it_is_promoted(
    worker_postgres_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = postgres_connect._FACTS.replace("pg_catalog.pg_is_in_recovery()", "true")
    monkeypatch.setattr(postgres_connect, "_FACTS", facts)
    with pytest.raises(
        StoreUnreachableError, match=r"is a standby, which is read-only; set host to its primary"
    ):
        await connect(worker_postgres_db.settings())


async def test_a_server_that_is_too_old(
    worker_postgres_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connect, "_OLDEST", 1000)
    with pytest.raises(StoreOpenError, match=r"is PostgreSQL \d+\.\d+.*; hector needs 1000 or newer"):
        await connect(worker_postgres_db.settings())


# --- answers that no server gives at will

AWAY, FULL, NEVER = StoreUnreachableError, ServerFullError, StoreOpenError


@pytest.mark.parametrize("mode", ["disable", "prefer"])
@pytest.mark.parametrize(
    ("code", "text", "kind", "why"),
    [
        ("57P03", "the database system is starting up", AWAY, "starts up or shuts down"),
        ("57P03", "the database system is shutting down", AWAY, "starts up or shuts down"),
        ("57P01", "terminating connection due to administrator command", AWAY, "shuts down"),
        ("57P02", "terminating connection because of crash", AWAY, "shuts down"),
        ("53300", "sorry, too many clients already", FULL, "no more connections"),
        ("53300", "remaining connection slots are reserved", FULL, "no more connections"),
        ("53200", "out of memory", AWAY, "cannot serve now"),
        ("58030", "could not fork new process", AWAY, "cannot serve now"),
        ("08004", "not now", AWAY, "cannot serve now"),
        (
            "28000",
            'keine Zeile in pg_hba.conf für Host "::1"',
            NEVER,
            "add a line that lets it in to that file",
        ),
        ("28000", 'role "hector" does not exist', NEVER, "check user, its LOGIN there, and pg_hba.conf"),
        ("55000", 'database "x" is not currently accepting connections', NEVER, r"refuses: .* \(55000\)"),
        ("XX000", "a\nb  c" + "d" * 1000, NEVER, r"refuses: a b cd{295} \(XX000\)"),
        # What PgBouncer says, in all its versions, it says with one class.
        ("08P01", "no more connections allowed (max_client_conn)", FULL, "no more connections"),
        ("08P01", "client connections exceeded (max_db_client_connections)", FULL, "no more connections"),
        ("08P01", "no such user", NEVER, "check user and password"),
        ("08P01", "SASL authentication failed", NEVER, "check user and password"),
        ("08P01", "password authentication failed", NEVER, "check user and password"),
        (
            "08P01",
            "no such database: sessions",
            NEVER,
            r"knows no database 'sessions'; add it to its \[databases\]",
        ),
        ("08P01", "SSL required", NEVER, "demands TLS; set ssl_mode: require"),
        ("08P01", "pooler is shutting down", AWAY, "cannot serve now"),
        ("08P01", "query_wait_timeout", AWAY, "cannot serve now"),
        ("08P01", "client_login_timeout (server down)", AWAY, "cannot serve now"),
        (
            "08P01",
            "server login has been failing, try again later (server_login_retry)",
            AWAY,
            "cannot serve",
        ),
        ("08P01", "bouncer config error", NEVER, "the pooler at .* refuses: bouncer config error"),
    ],
)
async def test_an_answer(code: str, text: str, kind: type[StoreOpenError], why: str, mode: SslMode) -> None:
    async with impostor(postgres_that_refuses(code, text)) as found:
        with pytest.raises(StoreOpenError, match=why) as raised:
            await connect(somewhere(found.port, mode))
    assert type(raised.value) is kind


async def test_no_password_is_sent_without_tls_where_there_must_be_tls() -> None:
    async with impostor(postgres_that_signs_in_by(3)) as found:
        with pytest.raises(StoreOpenError, match=r"ssl_mode require wants TLS"):
            await connect(somewhere(found.port, "require"))
        # Only the question for TLS: once by asyncpg, once to find out what it was that said no.
        assert bytes(found.heard) == bytes.fromhex("0000000804d2162f") * 2


async def test_a_way_to_sign_in_that_is_not_known_is_told() -> None:
    async with impostor(postgres_that_signs_in_by(6)) as found:
        with pytest.raises(
            StoreOpenError, match=r"signing in at .* failed: unsupported authentication method"
        ):
            await connect(somewhere(found.port))


# --- behind a pooler


@pytest.mark.parametrize("mode", ["disable", "prefer", "verify-full"])
async def test_a_pooler_is_noticed(mode: SslMode, pgbouncer: PgBouncer, worker_postgres_db: Database) -> None:
    db = pgbouncer.before(worker_postgres_db)
    async with linked(db.settings(tls=Tls(mode, root_cert=db.tls.ca))) as link:
        assert link.pooled


async def test_settings_are_made_for_a_transaction_and_left_to_nobody(pgbouncer_db: Database) -> None:
    await pgbouncer_db.run(
        f"ALTER ROLE {pgbouncer_db.user} SET synchronous_commit = off",
        f"ALTER ROLE {pgbouncer_db.user} SET work_mem = '7MB'",
        admin=True,
    )
    theirs = {"lock_timeout": "0", "statement_timeout": "0", "synchronous_commit": "off", "work_mem": "7MB"}
    settings = pgbouncer_db.settings(options={"work_mem": "123kB"})
    async with linked(settings) as link, linked(settings) as other:
        await link.connection.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED;{link.local_settings_sql}")
        assert await shown(link, *OURS, "work_mem") == OURS | {"work_mem": "123kB"}
        await link.connection.execute("COMMIT")
        assert await shown(link, *theirs) == theirs
        # The same session of the server, or another one.
        assert await shown(other, *theirs) == theirs
        names = await shown(other, "application_name", "timezone")
        assert names == {"application_name": "hector", "timezone": "UTC"}


async def test_more_links_than_sessions_run_transactions_side_by_side(pgbouncer_db: Database) -> None:
    settings = pgbouncer_db.settings()
    links = [await connect(settings) for _ in range(12)]

    async def talk(number: int, link: PostgresLink) -> None:
        connection: Any = link.connection
        for turn in range(20):
            await connection.execute(f"BEGIN;{link.local_settings_sql}")
            # The same text on all links, and another on each: a session that was changed would mix them up.
            for text in ("SELECT $1::integer, $2::text", f"SELECT $1::integer + {number}, $2::text"):
                statement = await connection.prepare(text, name="")
                ((found, said),) = await statement.fetch(turn, "x")
                assert (found - turn, said) in ((0, "x"), (number, "x"))
            await connection.execute("COMMIT")

    await asyncio.gather(*(talk(*each) for each in enumerate(links)))
    for link in links:
        await link.connection.close()


async def test_a_wrong_password_for_a_pooler(pgbouncer: PgBouncer, worker_postgres_db: Database) -> None:
    db = pgbouncer.before(worker_postgres_db)
    for changes in ({"password": "wrong"}, {"user": "who"}):
        with pytest.raises(StoreOpenError, match=r"check user and password") as raised:
            await connect(db.settings(**changes))
        assert type(raised.value) is StoreOpenError


async def test_an_option_that_cannot_be_set_is_told_behind_a_pooler(
    pgbouncer: PgBouncer, worker_postgres_db: Database
) -> None:
    db = pgbouncer.before(worker_postgres_db)
    with pytest.raises(StoreOpenError, match=r"options: .* refuses one of them: .*nope"):
        await connect(db.settings(options={"nope": "1"}))


def test_what_must_follow_begin_is_one_statement() -> None:
    text = postgres_connect._set_all({"a.b": "it's", "c": "x; y"}, local=True)
    assert re.fullmatch(r"SELECT [^;]*'x; y', True\)", text)


# --- statements


async def test_a_statement_is_parsed_and_planned_once_and_reads_by_key(postgres_db: Database) -> None:
    store = await open_server("postgres", postgres_db.settings(max_conns=1, max_idle=1))
    tables = ", ".join(f'"{postgres_db.user}".{table}' for table in ("messages", "sessions", "turns"))
    # The server is told that there is nothing in them, for which a scan of all would do.
    await postgres_db.run(f"ANALYZE {tables}", admin=True)
    one = await Actor(store).join()
    for _ in range(20):
        await one.turn()
    driver = store._driver
    assert isinstance(driver, ServerDriver)
    connection = await driver.pool.acquire()
    assert isinstance(connection, PostgresConnection)
    ours = await connection._connection.fetch(
        "SELECT name, statement, generic_plans, custom_plans, coalesce(array_length(parameter_types, 1), 0)"
        " FROM pg_prepared_statements WHERE name LIKE 'hector%'"
    )
    often = [(name, text, count) for name, text, generic, _, count in ours if generic >= 20]
    assert len(often) == 3, "begin, tail, end"
    assert sum(custom for _, _, _, custom, _ in ours) == 0
    for name, _, count in often:
        arguments = ", ".join(["NULL"] * count)
        plan = await connection._connection.fetch(f"EXPLAIN (COSTS OFF) EXECUTE {name}({arguments})")
        steps = "\n".join(line for (line,) in plan)
        assert "Seq Scan" not in steps
        assert "Sort" not in steps
    driver.pool.release(connection)
    await store.close()
