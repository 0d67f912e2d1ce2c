"""The servers of the other tests: what they offer, and that nothing is left of them."""

import asyncio
import os
import re
import signal
import ssl
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import asyncmy.errors
import asyncpg
import pytest

from tests.servers import (
    Access,
    Control,
    Database,
    DatabaseServer,
    MariaDbServer,
    PostgresServer,
    StartError,
    running,
)
from tests.servers.process import children, find_program

DENIED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.TooManyConnectionsError,
    asyncmy.errors.OperationalError,
)
"""The last is wide: ask for a text besides."""
NOT_TRUSTED = (ssl.SSLCertVerificationError, asyncmy.errors.OperationalError)
CUT_OFF = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncmy.errors.OperationalError,
)
ROOT = Path(__file__).parents[2]
SOON = 30
"""Seconds, on a machine that is busy with other tests; it is no measure."""


async def test_the_versions_are_those_that_are_promised_or_newer(
    postgres_db: Database, mysql_db: Database
) -> None:
    [(postgres,)] = await postgres_db.run("SHOW server_version_num")
    assert int(postgres) >= 15_00_00
    [(mysql,)] = await mysql_db.run("SELECT version()")
    assert "MariaDB" in mysql
    assert tuple(map(int, mysql.split(".")[:2])) >= (10, 11)


def test_no_server_runs_as_root(database_server: DatabaseServer) -> None:
    assert Path(f"/proc/{database_server.address.pid}").stat().st_uid != 0


# ------------------------------------------------------------------------------------------- databases


async def test_a_postgres_user_may_create_nothing_in_public_unless_it_owns_the_database(
    postgres_server: PostgresServer, postgres_db: Database
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="schema public"):
        await postgres_db.run("CREATE TABLE t (i int)")
    await postgres_db.run("CREATE SCHEMA mine", "CREATE TABLE mine.t (i int)")
    owned = await postgres_server.create_database(owner=True)
    await owned.run("CREATE TABLE t (i int)")
    await postgres_server.drop_database(owned)


async def test_an_added_user_may_connect_and_no_more(
    database_server: DatabaseServer, server_db: Database
) -> None:
    await server_db.run("CREATE TABLE secret (i int)", admin=True)
    added = await database_server.add_user(server_db)
    assert await added.run("SELECT 1") == [(1,)]
    with pytest.raises(DENIED, match="denied"):
        await added.run("SELECT i FROM secret")


async def test_a_dropped_database_takes_its_users_along(
    database_server: DatabaseServer, server_db: Database
) -> None:
    db = await database_server.create_database()
    added = await database_server.add_user(db)
    await database_server.drop_database(db)
    users = "SELECT usename FROM pg_user" if db.driver == "postgres" else "SELECT User FROM mysql.user"
    left = {user for (user,) in await server_db.run(users, admin=True)}
    assert server_db.user in left
    assert not left & {db.user, added.user}


async def test_a_user_has_no_more_connections_than_were_asked_for(database_server: DatabaseServer) -> None:
    db = await database_server.create_database(max_connections=1)
    async with db.connected():
        with pytest.raises(DENIED, match=r"too many connections|max_user_connections"):
            await db.run("SELECT 1")
    await database_server.drop_database(db)


async def test_tables_that_refer_to_one_another_are_emptied_and_others_are_kept(
    database_server: DatabaseServer, server_db: Database
) -> None:
    tables = ("parents", "children", "others")
    if server_db.driver == "postgres":
        # Wherever they are.
        await server_db.run(f"CREATE SCHEMA {server_db.user}")
    await server_db.run(
        "CREATE TABLE parents (id int PRIMARY KEY)",
        "CREATE TABLE children (id int, FOREIGN KEY (id) REFERENCES parents (id))",
        "CREATE TABLE others (id int)",
        *(f"INSERT INTO {table} VALUES (1)" for table in tables),
    )
    await database_server.empty(server_db, ["parents", "children"])
    assert [await server_db.run(f"SELECT count(*) FROM {table}") for table in tables] == [
        [(0,)],
        [(0,)],
        [(1,)],
    ]
    with pytest.raises((asyncpg.UndefinedTableError, asyncmy.errors.ProgrammingError), match="exist"):
        await database_server.empty(server_db, ["parents", "chidlren"])


# ------------------------------------------------------------------------------------------------- TLS


async def is_encrypted(db: Database, tls: ssl.SSLContext | None) -> bool:
    if db.driver == "postgres":
        [(used,)] = await db.run("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", tls=tls)
        return bool(used)
    [(_, version)] = await db.run("SHOW STATUS LIKE 'Ssl_version'", tls=tls)
    return str(version).startswith("TLS")


async def test_a_connection_is_encrypted_if_the_client_wants_it(server_db: Database) -> None:
    assert await is_encrypted(server_db, server_db.tls.context())
    assert not await is_encrypted(server_db, None)


async def test_the_certificate_names_one_host_of_two(server_db: Database) -> None:
    other = replace(server_db, host="127.0.0.2")
    assert await other.run("SELECT 1") == [(1,)]
    with pytest.raises(NOT_TRUSTED, match=r"not valid for '127\.0\.0\.2'"):
        await other.run("SELECT 1", tls=server_db.tls.context())
    assert await replace(server_db, host="localhost").run("SELECT 1", tls=server_db.tls.context()) == [(1,)]


async def test_the_other_authority_signed_nothing(server_db: Database) -> None:
    files = replace(server_db.tls, ca=server_db.tls.other_ca)
    with pytest.raises(NOT_TRUSTED, match="self-signed certificate in certificate chain"):
        await server_db.run("SELECT 1", tls=files.context())


async def test_a_server_may_have_an_expired_certificate(
    postgres_expired: PostgresServer, mysql_expired: MariaDbServer
) -> None:
    for server in (postgres_expired, mysql_expired):
        db = await server.create_database()
        assert await db.run("SELECT 1") == [(1,)]
        with pytest.raises(NOT_TRUSTED, match="expired"):
            await db.run("SELECT 1", tls=db.tls.context())


async def test_a_server_may_know_no_tls(
    postgres_without_tls: PostgresServer, mysql_without_tls: MariaDbServer
) -> None:
    for server in (postgres_without_tls, mysql_without_tls):
        db = await server.create_database()
        assert await db.run("SELECT 1") == [(1,)]
        with pytest.raises((ConnectionError, asyncmy.errors.OperationalError), match=r"SSL"):
            await db.run("SELECT 1", tls=db.tls.context())


WAYS = ("plain", "tls", "certificate")
"""How a client comes; the last with TLS and its certificate."""


@pytest.mark.parametrize(
    ("access", "good"),
    [
        ("any", ["plain", "tls", "certificate"]),
        ("plain", ["plain"]),
        ("tls", ["tls", "certificate"]),
        ("certificate", ["certificate"]),
        ("certificate_alone", ["certificate"]),
    ],
)
async def test_users_may_come_in_certain_ways_only(
    database_server: DatabaseServer, access: Access, good: Sequence[str]
) -> None:
    if (access, database_server.driver) == ("plain", "mysql"):
        with pytest.raises(NotImplementedError, match="take one without"):
            await database_server.create_database(access=access)
        return
    db = await database_server.create_database(access=access)
    for way in WAYS:
        tls = None if way == "plain" else db.tls.context(certificate=way == "certificate")
        if way in good:
            assert await db.run("SELECT 1", tls=tls) == [(1,)]
        else:
            with pytest.raises(DENIED, match=r"pg_hba\.conf|valid client certificate|Access denied"):
                await db.run("SELECT 1", tls=tls)
    await database_server.drop_database(db)


@pytest.mark.parametrize("name", ["admin", "root", "postgres"])
async def test_nobody_gets_in_without_a_password(server_db: Database, name: str) -> None:
    with pytest.raises(DENIED, match=r"password authentication failed|Access denied"):
        await replace(server_db, user=name, password="").run("SELECT 1")


async def test_users_may_come_through_the_unix_socket(server_db: Database) -> None:
    through_socket = replace(server_db, host=str(server_db.socket))
    whoami = "SELECT current_user" if server_db.driver == "postgres" else "SELECT current_user()"
    [(found,)] = await through_socket.run(whoami)
    assert found.partition("@")[0] == server_db.user


async def test_a_wrong_password_is_refused(server_db: Database) -> None:
    with pytest.raises(DENIED, match=r"password authentication failed|Access denied"):
        await replace(server_db, password="wrong").run("SELECT 1")


# ---------------------------------------------------------------------------------------------- pooler


async def test_connections_through_the_pooler_share_one_of_the_server(pgbouncer_db: Database) -> None:
    tls = pgbouncer_db.tls.context()
    async with pgbouncer_db.connected() as one, pgbouncer_db.connected(tls=tls) as two:
        assert await one("SELECT pg_backend_pid()") == await two("SELECT pg_backend_pid()")


async def test_a_wrong_password_is_refused_by_the_pooler(pgbouncer_db: Database) -> None:
    with pytest.raises(asyncpg.ProtocolViolationError, match="SASL authentication failed"):
        await replace(pgbouncer_db, password="wrong").run("SELECT 1")


# --------------------------------------------------------------------------------------------- outages


async def test_a_server_of_ones_own_comes_back_with_what_was_committed(own_server: DatabaseServer) -> None:
    db = await own_server.create_database(owner=True)
    await db.run("CREATE TABLE t (i int)")
    for end in (own_server.stop, own_server.kill):
        await db.run("INSERT INTO t VALUES (1)")
        async with db.connected() as execute:
            await end()
            with pytest.raises(CUT_OFF):
                await execute("SELECT 1")
        with pytest.raises(CUT_OFF):
            await db.run("SELECT 1")
        await own_server.start()
    assert await db.run("SELECT count(*) FROM t") == [(2,)]


async def test_a_frozen_server_answers_when_it_is_thawed(own_server: DatabaseServer) -> None:
    db = await own_server.create_database()
    async with db.connected() as execute:
        await own_server.freeze()
        answer = asyncio.create_task(execute("SELECT 1"))
        status = Path(f"/proc/{own_server.address.pid}/status").read_text()
        assert re.search(r"^State:\s+T", status, re.MULTILINE)
        assert not answer.done()
        await own_server.thaw()
        assert await answer == [(1,)]


# ------------------------------------------------------------------------------------------- beginnings


def test_who_names_the_same_file_shares_the_servers(tmp_path: Path) -> None:
    notice = tmp_path / "servers"
    with ThreadPoolExecutor(3) as at_once:
        one, *others, two = at_once.map(Control.join, [notice] * 3)
    assert one.pid == two.pid
    for leaving in (one, *others):
        leaving.leave()
    assert MariaDbServer(two).address == MariaDbServer(two).address
    two.leave()
    assert not two.folder.exists()
    later = Control.join(notice)
    assert later.pid != two.pid
    later.leave()


def test_a_missing_program_is_named_with_the_package_that_has_it() -> None:
    with pytest.raises(StartError, match=r"need no-such-server, .*apt-get install the-package"):
        find_program("no-such-server", "the-package")


async def test_a_durable_server_syncs_each_commit() -> None:
    async with running(durable=True) as servers:
        postgres = await servers["postgres"].create_database()
        assert await postgres.run("SHOW fsync") == [("on",)]
        mysql = await servers["mysql"].create_database()
        assert await mysql.run("SELECT @@innodb_flush_log_at_trx_commit, @@innodb_doublewrite") == [(1, 1)]


# ---------------------------------------------------------------------------------------------- the end


async def end_of(process: int) -> None:
    """Of one that is not our child; `process` is its pidfd."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process, ended.set)
    try:
        async with asyncio.timeout(SOON):
            await ended.wait()
    finally:
        loop.remove_reader(process)
        os.close(process)


def with_children(pids: Sequence[int]) -> list[int]:
    return [*pids, *(child for pid in pids for child in children(pid))]


def pids_with(folder: Path) -> list[int]:
    """Of the processes that were given something in that folder as an argument."""
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(folder) in arguments.read_bytes():
                found.append(int(arguments.parent.name))
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
async def test_nothing_is_left_however_the_owner_ends(end: signal.Signals) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.servers", cwd=ROOT, stdin=DEVNULL, stdout=PIPE
    )
    assert owner.stdout
    said = b"".join([await owner.stdout.readline() for _ in range(4)]).decode()
    [_, log] = re.findall(r"log: (.*)", said)
    folder = Path(log).parents[1]
    pids = with_children(pids_with(folder))
    # The supervisor, a server and its five processes, a server.
    assert len(pids) >= 8
    processes = [os.pidfd_open(pid) for pid in pids]
    owner.send_signal(end)
    await asyncio.gather(owner.communicate(), *map(end_of, processes))
    assert not folder.exists()


async def test_the_servers_die_with_their_supervisor() -> None:
    control = Control.start()
    pids = with_children([PostgresServer(control).address.pid, MariaDbServer(control).address.pid])
    processes = [os.pidfd_open(pid) for pid in pids]
    os.kill(control.pid, signal.SIGKILL)
    await asyncio.gather(*map(end_of, processes))
    with pytest.raises(StartError, match="gone"):
        control.ask(do="hello")
    control.leave()
    rmtree(control.folder)
