"""`hector` on PostgreSQL and MariaDB: privileges, TLS, agents and processes that share, a pooler between."""

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import pytest

from hector.storage.migrate import HECTOR
from tests.e2e.conftest import Run, Server
from tests.e2e.over_http import STORE, Client, client, configuration
from tests.servers import Access, Control, Database, DatabaseServer, PostgresServer
from tests.servers.process import ServerProcess, choose_account, find_program, free_port

Serve: TypeAlias = Callable[..., Awaitable[Server]]

FAILED = f"Error: failed to connect to session store '{STORE}': "


def schema(db: Database) -> str | None:
    """The key that names where a user of that name has its tables."""
    return db.user if db.driver == "postgres" else None


# --- least privilege


@pytest.fixture
async def app(folder: Path, run: Run, server_db: Database, database_server: DatabaseServer) -> Database:
    """A user without privileges, whose configuration is config.yaml. The tables are owner.yaml's user's."""
    app = await database_server.add_user(server_db)
    (folder / "owner.yaml").write_text(configuration(server_db))
    config = configuration(app, model="obey", lease_ttl=1, schema=schema(server_db))
    (folder / "config.yaml").write_text(config)
    migrated = await run("db", "migrate", "--config", "owner.yaml")
    assert migrated.out == f"session store '{STORE}': schema {HECTOR.head} (made)\n", migrated.err
    return app


async def test_the_two_documented_grants_are_told_what_they_lack(
    app: Database, server_db: Database, run: Run
) -> None:
    role = app.user if app.driver == "postgres" else f"{app.user}@'%'"
    place = f"{server_db.user}." if app.driver == "postgres" else ""
    await server_db.run(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {place}sessions TO {role};",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {place}messages TO {role};",
        admin=True,
    )
    ended = await run("serve", "--port", "0")
    assert (ended.status, ended.out) == (1, "")
    who = app.user if app.driver == "postgres" else f"{app.user}@%"
    assert f"{FAILED}its user '{who}' lacks " in ended.err
    assert f"`hector db grants {who}`" in ended.err
    lacks = ended.err.partition(" lacks ")[2].partition("; `hector db grants")[0]
    others = "files, push_configs, push_deliveries, replicas, summaries, tombstones, turn_events, turns"
    everything = f"SELECT, INSERT, UPDATE, DELETE on {others}; SELECT on hector_version"
    # Without USAGE the names of its tables are all that is to be seen of a schema.
    usage = f"USAGE on schema {server_db.user}; " if app.driver == "postgres" else ""
    assert lacks == usage + everything


async def test_the_printed_grants_are_enough_for_everything(
    app: Database, server_db: Database, run: Run, serve: Serve
) -> None:
    printed = await run("db", "grants", app.user, "--config", "owner.yaml")
    assert printed.status == 0, printed.err
    await server_db.run(*(line for line in printed.out.splitlines() if line[:2] != "--"), admin=True)

    server = await serve()
    async with client(server.url) as there:
        assert await there.say("say one") == "one"
        running = await there.post("stream 2 begun\nwait forever", configuration={"blocking": False})
        async with asyncio.TaskGroup() as meanwhile:
            queued = meanwhile.create_task(there.say("say two"))
            while not await waiting(there):
                pass
            canceled = await cancel(there, running)
        assert canceled.json()["metadata"]["reason"] == "canceled"
        assert queued.result() == "two"
        assert await there.say("say other", session="other") == "other"
        assert (await there.http.delete("/v1/agents/assistant/sessions/other")).status_code < 300
        left = await there.post("wait forever", session="left", configuration={"blocking": False})
        assert left.status_code == 200
    # What a dead one leaves is run on by the next, and waits there for ever, too.
    server.process.kill()
    await server.process.wait()

    again = await serve()
    async with client(again.url) as there:
        assert [text for text in await there.texts("s") if not text.startswith("stream")] == [
            "say one",
            "one",
            "say two",
            "two",
        ]
        async with asyncio.TaskGroup() as meanwhile:
            queued = meanwhile.create_task(there.say("say back", session="left"))
            while not await waiting(there, "left"):
                pass
            assert (await cancel(there, left)).json()["metadata"]["reason"] == "canceled"
        assert queued.result() == "back"
        assert (await there.http.get("/v1/agents/assistant/sessions/other")).status_code == 404
    again.process.terminate()
    _, err = await again.process.communicate()
    assert (again.process.returncode, err.count(b"ERROR")) == (0, 0), err


# --- several agents


async def test_three_agents_share_a_pool_and_nothing_else(
    folder: Path, postgres_db: Database, serve: Serve
) -> None:
    agents = ("customer-support", "sales-assistant", "technical-advisor")
    most = 4
    (folder / "config.yaml").write_text(
        configuration(postgres_db, *agents, max_conns=most, max_idle=most, ssl_mode="disable")
    )
    server = await serve()
    async with client(server.url) as there:

        async def each(text: str, session: str) -> list[str]:
            return await asyncio.gather(
                *(there.say(f"{text} {agent}", session=session, agent=agent) for agent in agents)
            )

        for session in ("shared", "other"):
            told = await asyncio.gather(*(each(f"My number is {number} at", session) for number in range(3)))
            assert len(told) == 3
        # What is open stays open.
        held = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{postgres_db.user}'"
        assert 1 < (await postgres_db.run(held, admin=True))[0][0] <= most
        for agent in agents:
            texts = await there.texts("shared", agent)
            assert len(texts) == 6
            assert all(text.endswith(agent) for text in texts)

        gone, *kept = agents
        assert (await there.http.delete(f"/v1/agents/{gone}/sessions/shared")).status_code < 300
        assert (await there.http.get(f"/v1/agents/{gone}/sessions/shared")).status_code == 404
        assert await there.say("What is my number?", session="shared", agent=gone) == "I do not know."
        for agent in kept:
            assert len(await there.texts("shared", agent)) == 6
        assert len(await there.texts("other", gone)) == 6


# --- several processes


async def test_three_replicas_that_start_at_once_make_one_schema(
    folder: Path, server_db: Database, serve: Serve
) -> None:
    (folder / "config.yaml").write_text(configuration(server_db))
    servers = await asyncio.gather(*(serve() for _ in range(3)))
    urls = [server.url for server in servers]
    assert len(set(urls)) == 3
    for number, url in enumerate(urls):
        async with client(url) as there:
            assert await there.say(f"Hello {number}") == f"Got it: Hello {number}"
    async with client(urls[0]) as there:
        assert len(await there.texts("s")) == 6
    where = "pg_tables WHERE" if server_db.driver == "postgres" else "information_schema.tables WHERE"
    mine = "" if server_db.driver == "postgres" else f" AND table_schema = '{server_db.database}'"
    found = await server_db.run(f"SELECT count(*) FROM {where} {table_name(server_db)} = 'sessions'{mine}")
    assert found == [(1,)]
    assert await server_db.run("SELECT version_num FROM hector_version") == [(HECTOR.head,)]
    for server in servers:
        server.process.terminate()
    said = [(await server.process.communicate())[1].decode() for server in servers]
    assert sum(": create" in lines for lines in said) == 1, said
    assert not [lines for lines in said if "ERROR" in lines or "WARNING" in lines]


def table_name(db: Database) -> str:
    return "tablename" if db.driver == "postgres" else "table_name"


# --- TLS


@pytest.fixture
async def certified(database_server: DatabaseServer) -> AsyncIterator[Database]:
    """Its user must show a client certificate beside the password."""
    access: Access = "certificate"
    db = await database_server.create_database(access=access)
    yield db
    await database_server.drop_database(db)


async def test_the_documented_keys_encrypt_and_show_a_certificate(
    folder: Path, certified: Database, run: Run
) -> None:
    tls = certified.tls
    config = folder / "config.yaml"

    def documented(**changes: str | None) -> str:
        keys: dict[str, Any] = {
            "ssl_mode": "require",
            "ssl_cert": str(tls.cert),
            "ssl_key": str(tls.key),
            "ssl_root_cert": str(tls.ca),
        }
        return configuration(certified, **{**keys, **changes})

    config.write_text(documented())
    checked = await run("config", "check", "--connect")
    assert checked.status == 0, checked.err
    assert "TLSv1.3" in checked.out
    told = await run("call", "--session=s", "assistant", "Remember: meeting at 3pm")
    assert told.out == "Got it: Remember: meeting at 3pm\n", told.err

    config.write_text(documented(ssl_cert=None, ssl_key=None))
    without = await run("call", "--session=s", "assistant", "When is the meeting?")
    assert (without.status, without.out) == (1, "")
    assert without.err.startswith(FAILED)
    assert "certificate" in without.err

    config.write_text(documented(ssl_root_cert=str(tls.other_ca)))
    stranger = await run("call", "--session=s", "assistant", "When is the meeting?")
    assert (stranger.status, stranger.out) == (1, "")
    assert f"nobody in ssl_root_cert ({tls.other_ca})" in stranger.err


# --- PgBouncer


@pytest.fixture
async def narrow(servers: Control, own_postgres: PostgresServer) -> AsyncIterator[Database]:
    """A database behind a PgBouncer in transaction mode, which has two connections to it."""
    db = await own_postgres.create_database()
    account, folder, port = choose_account("postgres"), servers.folder / f"narrow-{uuid4().hex}", free_port()
    folder.mkdir(mode=0o755)
    password = db.password.replace('"', '""')
    (folder / "users").write_text(f'"{db.user}" "{password}"\n')
    (folder / "pgbouncer.ini").write_text(f"""
[databases]
* = host={db.socket} port={db.server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = 2
""")
    command = [str(find_program("pgbouncer", "pgbouncer")), str(folder / "pgbouncer.ini")]
    process = await ServerProcess.start(
        account, command, ready=b"process up", folder=folder, log=folder / "log"
    )
    yield replace(db, port=port)
    await process.end(signal.SIGINT)
    shutil.rmtree(folder)


async def test_two_servers_share_two_connections_of_a_pooler(
    folder: Path, own_postgres: PostgresServer, narrow: Database, serve: Serve
) -> None:
    (folder / "config.yaml").write_text(configuration(narrow, model="obey"))
    servers = await asyncio.gather(serve(), serve())
    async with client(servers[0].url) as one, client(servers[1].url) as other:
        held = await one.post("wait forever", configuration={"blocking": False})
        async with asyncio.TaskGroup() as meanwhile:
            queued = [meanwhile.create_task(there.say("pause 0.01\nsay done")) for there in (one, other) * 2]
            while await waiting(other) < 4:
                pass
            await cancel(other, held)
            many = [
                meanwhile.create_task(there.say(f"say {number}", session=str(number % 10)))
                for number in range(40)
                for there in (one, other)
            ]
        assert [task.result() for task in queued] == ["done"] * 4
        assert [task.result() for task in many] == [str(number) for number in range(40) for _ in (one, other)]
        texts = await one.texts("s")
        assert texts[1:] == ["pause 0.01\nsay done", "done"] * 4
        used = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{narrow.user}'"
        assert await narrow.run(used, admin=True) == [(2,)]
    for server in servers:
        server.process.terminate()
        _, err = await server.process.communicate()
        assert (server.process.returncode, b"WARNING" in err) == (0, False), err.decode()
    # What one transaction leaves in the server, another's would stumble over.
    said = own_postgres.address.log.read_text()
    assert not re.findall(r"ERROR:.*", said)


async def waiting(there: Client, session: str = "s") -> int:
    found = await there.http.get(f"/v1/agents/assistant/sessions/{session}")
    number: int = found.json()["waiting"]
    return number


async def cancel(there: Client, begun: httpx.Response) -> httpx.Response:
    return await there.http.post(f"/v1/agents/assistant/tasks/{begun.json()['task']['id']}:cancel")
