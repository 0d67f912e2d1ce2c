"""`hector serve` and a database server that is not there: not yet, no more, or not for it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.conftest import Run, Server, Start, ready
from tests.e2e.over_http import STORE, Client, client, configuration, reply
from tests.e2e.test_serve import logged
from tests.servers import Database, DatabaseServer
from tests.servers.process import free_port

FAILED = f"failed to connect to session store '{STORE}': "
TIMES = 3
"""How many turns each client has before something happens, and after it."""


# --- not yet


async def test_it_starts_before_its_database(folder: Path, own_server: DatabaseServer, start: Start) -> None:
    db = await own_server.create_database()
    await own_server.stop()
    (folder / "config.yaml").write_text(configuration(db))
    port = free_port()
    process = await start("serve", "--port", str(port))
    why = await logged(process, "trying again")
    assert f"{FAILED}nothing listens at {db.host}:{db.port} (connection refused)" in why
    assert why.endswith("; trying again for up to 60 s\n")
    async with client(f"http://127.0.0.1:{port + 1}") as there:
        assert (await there.http.get("/health")).status_code == 200
        waits = await there.http.get("/ready")
        assert waits.status_code == 503
        assert waits.json()["problems"][0].startswith(FAILED)
        refused = await there.post("Hello")
        assert (refused.status_code, refused.headers["retry-after"].isdecimal()) == (503, True)
        await own_server.start()
        server = await ready(process)
        assert server.url == str(there.http.base_url)
        assert (await there.http.get("/ready")).status_code == 200
        assert await there.say("Hello") == "Got it: Hello"


async def test_a_wrong_password_ends_the_start_at_once(folder: Path, server_db: Database, run: Run) -> None:
    (folder / "config.yaml").write_text(configuration(server_db, password="wr0ng-passw0rd"))
    ended = await run("serve", "--port", "0")
    assert (ended.status, ended.out) == (1, "")
    assert f"Error: {FAILED}" in ended.err
    assert f"'{server_db.user}'" in ended.err
    assert "check user and password" in ended.err
    assert "trying again" not in ended.err
    assert "wr0ng" not in ended.err


async def test_a_command_does_not_wait_for_a_database(
    folder: Path, own_server: DatabaseServer, run: Run
) -> None:
    db = await own_server.create_database()
    await own_server.stop()
    (folder / "config.yaml").write_text(configuration(db))
    ended = await run("call", "assistant", "Hello")
    ask = "pg_isready -h" if db.driver == "postgres" else "mysqladmin ping -h"
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(
        f"Error: {FAILED}nothing listens at {db.host}:{db.port} (connection refused);"
    )
    assert ask in ended.err


# --- no more


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_stop_does_not_wait_for_a_silent_database(
    folder: Path, own_server: DatabaseServer, start: Start, workers: str
) -> None:
    db = await own_server.create_database()
    config = json.loads(configuration(db, model="obey")) | {"server": {"drain_timeout": 0}}
    (folder / "config.yaml").write_text(json.dumps(config))
    server = await ready(await start("serve", "--port", "0", "--workers", workers))
    async with client(server.url) as there:
        for number in range(6):
            await there.post("pause 100", session=f"s{number}", configuration={"blocking": False})
        await own_server.freeze()
        server.process.terminate()
        # Longer, and it would be killed.
        async with asyncio.timeout(14):
            assert await server.process.wait() == 0
        await own_server.thaw()


class Talker:
    """A client that repeats each message under its id until that is answered, and notes what was."""

    def __init__(self, there: Client, session: str) -> None:
        self._there, self.session = there, session
        self.said: list[str] = []

    async def talk(self, is_up: asyncio.Event) -> None:
        for number in count():
            # A model takes its time, so that the database goes in the middle of turns, too.
            text, message_id = f"pause 0.02\nsay {self.session}, number {number}", str(uuid4())
            response = await self._there.post(text, session=self.session, message_id=message_id)
            while response.status_code == 503:
                await is_up.wait()
                response = await self._there.post(text, session=self.session, message_id=message_id)
            self.said += [text, reply(response)]


async def test_a_restarted_database_loses_nothing(
    folder: Path, own_server: DatabaseServer, serve: Callable[..., Awaitable[Server]]
) -> None:
    (folder / "config.yaml").write_text(configuration(await own_server.create_database(), model="obey"))
    server = await serve()
    is_up = asyncio.Event()
    async with client(server.url) as there:
        talkers = [Talker(there, session) for session in ("a", "b", "c", "d")]
        async with asyncio.TaskGroup() as talking:
            tasks = [talking.create_task(talker.talk(is_up)) for talker in talkers]

            async def more() -> None:
                aims = [len(talker.said) + 2 * TIMES for talker in talkers]
                while any(len(talker.said) < aim for talker, aim in zip(talkers, aims, strict=True)):
                    await there.http.get("/health")

            await more()
            for end in (own_server.stop, own_server.kill):
                is_up.clear()
                await end()
                # Those of the talkers wait for turns that run; this one comes now.
                assert (await there.post("say e", session="e")).status_code == 503
                await own_server.start()
                is_up.set()
                await more()
            for task in tasks:
                task.cancel()
        while (await there.http.get("/ready")).status_code != 200:
            await there.http.get("/health")  # until the next heartbeat
        for talker in talkers:
            stored = await there.texts(talker.session)
            # The last turn was broken off by us.
            assert stored[: len(talker.said)] == talker.said
            assert len(stored) <= len(talker.said) + 2


async def test_idle_connections_that_the_server_closes_are_seen_by_nobody(
    folder: Path, server_db: Database, serve: Callable[..., Awaitable[Server]]
) -> None:
    (folder / "config.yaml").write_text(configuration(server_db, max_idle=5))
    server = await serve()
    async with client(server.url) as there:
        for number in range(5):
            # At once, so that there are several.
            together = (there.say(f"Hello {number}", session=session) for session in "abcde")
            assert await asyncio.gather(*together) == [f"Got it: Hello {number}"] * 5
            assert await close_idle(server_db) > 0
    server.process.terminate()
    _, err = await server.process.communicate()
    assert "ERROR" not in err.decode()


async def close_idle(db: Database) -> int:
    """Those of the database's user; how many there were."""
    if db.driver == "postgres":
        kill = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE usename = '{db.user}' AND state = 'idle'"
        )
        return len(await db.run(kill, admin=True))
    find = f"SELECT id FROM information_schema.processlist WHERE user = '{db.user}' AND command = 'Sleep'"
    found = [number for (number,) in await db.run(find, admin=True)]
    await db.run(*(f"KILL {number}" for number in found), admin=True)
    return len(found)


async def test_a_migration_waits_for_its_database(
    folder: Path, own_server: DatabaseServer, start: Start
) -> None:
    db = await own_server.create_database()
    await own_server.stop()
    (folder / "config.yaml").write_text(configuration(db))
    process = await start("db", "migrate")
    await logged(process, "trying again for up to 60 s")
    await own_server.start()
    out, err = await process.communicate()
    assert (process.returncode, out.decode().startswith("session store ")) == (0, True), err.decode()
