"""A server whose stores cannot be opened yet: what its clients are told, and how the start ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeAlias

import httpx
import pytest

from hector.config import Config, ServerSection
from hector.domain.errors import (
    StoreOpenError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from hector.runtime.build import open_runtime
from hector.runtime.patience import Patience
from hector.runtime.runtime import Runtime
from hector.server.entrance import Entrance
from hector.server.http.app import HectorApp
from hector.server.http.readiness import StoreCheck
from hector.server.serve import Server, serve
from hector.storage.migrate import upgrade_sqlite
from hector.storage.operations import MakeOperation
from hector.storage.sqlite import MemoryDriver
from hector.storage.store import SqlSessionStore
from tests.server.site import open_scripted, said
from tests.servers.process import free_port

SEND = "/v1/agents/a/message:send"


class Driver(MemoryDriver):
    """Fails as often as it is told to, and tells whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.closed = False

    async def write(
        self, make: MakeOperation[Any], at_once: MakeOperation[Any] | None = None, *, group: Hashable = None
    ) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("the connection was lost")
        return await super().write(make, at_once)

    async def close(self) -> None:
        self.closed = True
        await super().close()


class Database:
    """A session store's server, which does not answer before it `lets_in` or refuses."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._answers = asyncio.Event()
        self._error: Exception | None = None
        self._tried = asyncio.Condition()
        self.tries = 0
        self.broken_off = 0
        self.driver = Driver()

    async def open(self) -> SqlSessionStore:
        async with self._tried:
            self.tries += 1
            self._tried.notify_all()
        try:
            await self._answers.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        if self._error:
            raise self._error
        upgrade_sqlite(self.driver.connection)
        return SqlSessionStore(self.driver)

    async def until_tried(self, times: int = 1) -> None:
        async with self._tried:
            await self._tried.wait_for(lambda: self.tries >= times)

    def let_in(self) -> None:
        self._error = None
        self._answers.set()

    def is_away(self, why: str = "nobody listens on db:5432") -> None:
        self._error = StoreUnreachableError(self._store, why)
        self._answers.set()

    def refuse(self) -> None:
        self._error = StoreOpenError(self._store, "the password is wrong")
        self._answers.set()


class Starting:
    """A server that is being started; its agents `a` and `b` keep their sessions in `one` and `two`."""

    def __init__(self, connect_retry: float) -> None:
        self.one, self.two = Database("one"), Database("two")
        self.stop = asyncio.Event()
        self.ready: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
        self.port = free_port()
        store = {
            "backend": "sql",
            "connect_retry": connect_retry,
            "sql": {"driver": "sqlite", "database": "never-made.db"},
        }
        self.config = Config.model_validate(
            {
                "agents": {
                    "a": {"llm": "obeys", "session_store": "one"},
                    "b": {"llm": "obeys", "session_store": "two"},
                },
                "llms": {"obeys": {"type": "scripted", "model": "obey"}},
                "session_stores": {"one": store, "two": store},
                "server": {"port": self.port - 1},
            }
        )
        self.serving = asyncio.create_task(
            serve(self.opening, self.config.server, stop=self.stop, ready=self.ready.set_result)
        )

    def opening(self, patience: Patience | None) -> AbstractAsyncContextManager[Runtime]:
        async def open_store(config: Config, name: str) -> SqlSessionStore:
            return await {"one": self.one, "two": self.two}[name].open()

        return open_runtime(self.config, patience=patience, open_store=open_store)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    async def end(self) -> None:
        self.stop.set()
        with suppress(StoreOpenError, asyncio.CancelledError):
            await self.serving


Start: TypeAlias = Callable[..., Starting]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        def start(connect_retry: float = 60.0) -> Starting:
            starting = Starting(connect_retry)
            stack.push_async_callback(starting.end)
            return starting

        yield start


async def test_until_its_stores_are_open_a_server_is_alive_and_not_ready(start: Start) -> None:
    starting = start()
    starting.two.let_in()
    starting.one.is_away()
    await starting.one.until_tried(2)
    async with starting.client() as client:
        health, ready, send, cards = [
            await client.get("/health"),
            await client.get("/ready"),
            await client.post(SEND, **said("say x")),
            await client.get("/v1/agents"),
        ]
    assert (health.status_code, health.json()) == (200, {"status": "up"})
    assert (ready.status_code, ready.json()) == (
        503,
        {
            "status": "not ready",
            "problems": ["failed to connect to session store 'one': nobody listens on db:5432"],
        },
    )
    for refused in (send, cards):
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        error = refused.json()["error"]
        assert (error["code"], error["status"]) == ("unavailable", "UNAVAILABLE")
        assert "db:5432" not in error["message"]
    assert not starting.ready.done()


async def test_the_stores_are_opened_together_and_named_while_they_are(start: Start) -> None:
    starting = start()
    await starting.one.until_tried()
    await starting.two.until_tried()
    async with starting.client() as client:
        answer = await client.get("/ready")
        starting.one.let_in()
        while len((await client.get("/ready")).json()["problems"]) > 1:
            pass
        then = await client.get("/ready")
    assert answer.json()["problems"] == [
        "session store 'one' is being opened",
        "session store 'two' is being opened",
    ]
    assert then.json()["problems"] == ["session store 'two' is being opened"]


async def test_the_agents_take_over_the_connections_that_are_there(start: Start) -> None:
    starting = start()
    starting.two.let_in()
    starting.one.is_away()
    await starting.one.until_tried(2)
    async with starting.client() as client:
        assert (await client.get("/ready")).status_code == 503
        starting.one.let_in()
        server = await starting.ready
        assert (await client.get("/ready")).status_code == 200
        assert (await client.post(SEND, **said("say x"))).status_code == 200
        assert len(server._http._uvicorn.server_state.connections) == 1


async def test_no_request_is_lost_when_the_agents_take_over(start: Start) -> None:
    starting = start()
    starting.two.let_in()
    starting.one.is_away()
    await starting.one.until_tried(2)

    async def until_answered(number: int) -> set[int]:
        statuses = set()
        async with starting.client() as client:
            while 200 not in statuses:
                answer = await client.post(SEND, **said("say x", f"s{number}"))
                assert answer.json()
                statuses.add(answer.status_code)
        return statuses

    clients = [asyncio.create_task(until_answered(number)) for number in range(10)]
    await starting.one.until_tried(3)
    starting.one.let_in()
    assert await asyncio.gather(*clients) == [{503, 200}] * 10


async def test_a_request_that_comes_while_stores_are_opened_waits_for_them() -> None:
    runtime, _ = await open_scripted()
    app, entrance = an_app(Patience())
    async with a_client(app) as client:
        sending = asyncio.create_task(client.post(SEND, **said("say x")))
        await until_held(entrance)
        app.open(runtime)
        async with asyncio.timeout(30):
            assert (await sending).status_code == 200
    await runtime.close()


async def test_a_request_that_waits_is_answered_when_the_server_stops() -> None:
    app, entrance = an_app(Patience())
    async with a_client(app) as client:
        sending = asyncio.create_task(client.post(SEND, **said("say x")))
        await until_held(entrance)
        entrance.stop()
        async with asyncio.timeout(30):
            answer = await sending
        ready = await client.get("/ready")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "is stopping" in answer.json()["error"]["message"]
    assert ready.json()["problems"] == ["the server is stopping"]


async def test_a_request_does_not_wait_for_a_store_that_is_known_to_be_away() -> None:
    async def away() -> None:
        raise StoreUnreachableError("one", "nobody listens")

    patience = Patience()
    opening = asyncio.create_task(patience.open("one", away, 60.0))
    await asyncio.sleep(0)
    assert patience.failing
    app, _ = an_app(patience)
    async with a_client(app) as client, asyncio.timeout(30):
        assert (await client.post(SEND, **said("say x"))).status_code == 503
    opening.cancel()


async def test_a_request_does_not_wait_long_for_a_store_that_hangs(start: Start) -> None:
    starting = start()
    await starting.one.until_tried()
    async with starting.client() as client:
        assert (await client.post(SEND, **said("say x"))).status_code == 503


async def test_a_store_that_refuses_ends_the_start_and_closes_the_others(start: Start) -> None:
    starting = start()
    starting.one.let_in()
    await starting.two.until_tried()
    starting.two.refuse()
    with pytest.raises(StoreOpenError, match="failed to connect to session store 'two': the password is"):
        await starting.serving
    assert (starting.two.tries, starting.one.driver.closed) == (1, True)
    assert not starting.ready.done()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", starting.port)


async def test_a_store_that_refuses_does_not_wait_for_one_that_is_away(start: Start) -> None:
    starting = start()
    starting.one.is_away()
    await starting.one.until_tried(2)
    starting.two.refuse()
    with pytest.raises(StoreOpenError, match="the password is wrong"):
        await starting.serving


async def test_a_store_that_refuses_breaks_off_the_opening_of_others(start: Start) -> None:
    starting = start()
    await starting.one.until_tried()
    starting.two.refuse()
    with pytest.raises(StoreOpenError, match="the password is wrong"):
        await starting.serving
    assert starting.one.broken_off == 1


async def test_patience_has_an_end(start: Start) -> None:
    starting = start(connect_retry=0.3)
    starting.one.let_in()
    starting.two.is_away()
    with pytest.raises(StoreUnreachableError, match="failed to connect to session store 'two': nobody"):
        await starting.serving
    assert starting.two.tries >= 2
    assert starting.one.driver.closed


async def test_without_patience_a_store_is_tried_once(start: Start) -> None:
    starting = start()
    await starting.end()
    starting.one.let_in()
    starting.two.is_away()
    tries = starting.two.tries
    with pytest.raises(StoreUnreachableError):
        async with starting.opening(None):
            pass
    assert starting.two.tries == tries + 1


async def test_each_new_reason_is_logged_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hector.runtime.patience")
    starting = start()
    starting.two.let_in()
    starting.one.is_away("nobody listens")
    await starting.one.until_tried(2)
    starting.one.is_away("it starts up")
    await starting.one.until_tried(3)
    starting.one.let_in()
    await starting.ready
    assert [record.getMessage().partition(" for up to ")[0] for record in caplog.records] == [
        "failed to connect to session store 'one': nobody listens; trying again",
        "failed to connect to session store 'one': it starts up; trying again",
        "session store 'one' is open",
    ]


async def test_a_store_that_goes_away_when_it_was_just_opened_is_tried_again(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    starting = start()
    starting.one.driver.failures = 2
    starting.one.let_in()
    starting.two.let_in()
    server = await starting.ready
    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/ready")).json() == {"status": "ready"}
    assert starting.one.tries == 1
    assert "session store 'one': the connection was lost; trying again" in caplog.text


@pytest.mark.parametrize("away", [True, False])
async def test_a_stop_ends_a_start_that_waits(start: Start, away: bool) -> None:
    starting = start()
    starting.two.let_in()
    if away:
        starting.one.is_away()
        await starting.one.until_tried(2)
    else:
        await starting.one.until_tried()
    starting.stop.set()
    async with asyncio.timeout(10):
        await starting.serving
    assert starting.two.driver.closed
    assert not starting.ready.done()


@pytest.mark.parametrize("rounds", range(15))
async def test_a_stop_in_the_middle_of_the_taking_over_leaves_nothing_open(start: Start, rounds: int) -> None:
    starting = start()
    starting.two.let_in()
    await starting.one.until_tried()
    starting.one.let_in()
    for _ in range(rounds):
        await asyncio.sleep(0)
    starting.stop.set()
    await starting.serving
    assert (starting.one.driver.closed, starting.two.driver.closed) == (True, True)


async def test_what_was_opened_in_spite_of_a_stop_is_closed_without_a_word() -> None:
    stop = asyncio.Event()
    runtime, _ = await open_scripted()
    told = []

    @asynccontextmanager
    async def opening(patience: Patience) -> AsyncIterator[Runtime]:
        stop.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield runtime
        await runtime.close()
        told.append("closed")

    await serve(opening, ServerSection(port=0), stop=stop, ready=lambda _: told.append("ready"))
    assert told == ["closed"]


async def test_who_is_cancelled_while_starting_leaves_nothing_open(start: Start) -> None:
    starting = start()
    starting.two.let_in()
    await starting.one.until_tried()
    starting.serving.cancel()
    await asyncio.wait((starting.serving,))
    assert starting.serving.cancelled()
    assert (starting.one.broken_off, starting.two.driver.closed) == (1, True)


class Stores:
    """They tell that all is well when they are let to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def not_ready(self) -> list[str]:
        self.asked += 1
        await self.answers.wait()
        return []


async def test_stores_that_hang_are_told_in_time_and_asked_once() -> None:
    stores = Stores()
    check = StoreCheck(stores, within=0.01)
    told: Sequence[str] = ["the session stores have not answered within 0.01 s"]
    assert list(await asyncio.gather(check.problems(), check.problems())) == [told, told]
    assert (await check.problems(), stores.asked) == (told, 1)
    stores.answers.set()
    while await check.problems():
        pass
    assert await check.problems() == []


async def test_stores_are_asked_anew_when_they_have_answered() -> None:
    stores = Stores()
    stores.answers.set()
    check = StoreCheck(stores)
    for times in (1, 2):
        assert await check.problems() == []
        assert stores.asked == times


def an_app(patience: Patience) -> tuple[HectorApp, Entrance]:
    """One that holds requests for long."""
    entrance = Entrance(ServerSection(), patience, loopback=True, hold=60.0)
    return HectorApp(ServerSection(), entrance, loopback=True), entrance


def a_client(app: HectorApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=30)


async def until_held(entrance: Entrance) -> None:
    while not entrance._decided._waiters:  # noqa: ASYNC110 - nobody is told of who waits for an event
        await asyncio.sleep(0)
