"""Two machines with a server each, and between them the test with the database server and the models."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.e2e.over_http import Client, client
from tests.fakes.openai_server import FakeOpenAI
from tests.machines.network import Machine, Network
from tests.machines.serving import Server
from tests.machines.tables import Tables
from tests.servers import SERVERS, Control, Database, DatabaseServer, Options

T = TypeVar("T")

AGENTS = ("ant", "bee")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if sys.platform != "linux":
        pytest.skip("only Linux has network namespaces")
    try:
        network = Network()
    except PermissionError as error:
        why = f"machines are network namespaces, which only root may make here ({error.strerror})"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    yield network
    network.close()


@pytest.fixture(scope="module")
def distant_servers(network: Network) -> Iterator[Control]:
    """The supervisor of database servers that the machines reach."""
    with network.middle.entered():
        control = Control.start()
    yield control
    control.leave()


@pytest.fixture(scope="module", params=["postgres", "mysql"])
def distant_server(distant_servers: Control, request: pytest.FixtureRequest) -> DatabaseServer:
    return SERVERS[request.param](distant_servers, None, Options(anywhere=True))


@pytest.fixture
async def distant_db(distant_server: DatabaseServer, network: Network) -> Database:
    # It goes with its server: what a machine left in it that is cut off could hold up its end.
    return replace(await distant_server.create_database(), host=network.address("store"))


@dataclass(frozen=True, slots=True)
class Site:
    """All that a test plays with. The two servers are equal."""

    one: Server
    other: Server
    models: dict[str, FakeOpenAI]
    """Of each agent its own, which no cut cable keeps from the machines."""
    at_one: Client
    at_other: Client
    tables: Tables
    _talks: set[asyncio.Task[Any]] = field(default_factory=set)

    def start(self, talk: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """What a client does meanwhile; what has not ended with the test is broken off."""
        task = asyncio.create_task(talk)
        self._talks.add(task)
        return task

    async def hang_up(self) -> None:
        for each in self._talks:
            each.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)


@pytest.fixture
async def site(network: Network, distant_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    """The test is in the middle of the network: what it connects to from now on it reaches from there."""
    async with AsyncExitStack() as at_end:
        at_end.enter_context(network.middle.entered())
        models = {
            agent: await at_end.enter_async_context(FakeOpenAI(host=network.address("front")))
            for agent in AGENTS
        }
        one, other = await _started(at_end, network, distant_db, models, tmp_path)
        at_one, at_other = [await at_end.enter_async_context(client(each.url)) for each in (one, other)]
        site = Site(one, other, models, at_one, at_other, Tables(distant_db))
        at_end.push_async_callback(site.hang_up)
        yield site


async def _started(
    at_end: AsyncExitStack, network: Network, db: Database, models: dict[str, FakeOpenAI], folder: Path
) -> list[Server]:
    machines = []
    for number in (1, 2):
        (disk := folder / f"disk{number}").mkdir()
        machines.append(machine := Machine(network, number, disk))
        at_end.callback(machine.close)
    urls = {agent: model.url for agent, model in models.items()}

    async def start(machine: Machine) -> Server:
        server = await Server.start(machine, db, urls)
        at_end.push_async_callback(server.kill)
        return server

    return list(await asyncio.gather(*map(start, machines)))
