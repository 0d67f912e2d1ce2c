"""A server that clients reach through proxies, so that it may die and connections may break."""

import asyncio
import os
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.network import Link
from tests.clients.driver import Driver, Published
from tests.e2e.conftest import CONFIG, HECTOR, ready
from tests.fakes.openai_server import FakeOpenAI

AGENT = "assistant"


@dataclass(slots=True, eq=False)
class Site:
    """`hector serve` on SQLite, and the model that its agent asks."""

    model: FakeOpenAI
    folder: Path
    process: Process
    http: Link
    grpc: Link

    @property
    def agent(self) -> str:
        """Its URL, for clients."""
        return f"http://127.0.0.1:{self.http.port}/v1/agents/{AGENT}"

    @property
    def own_grpc_address(self) -> str:
        """Which it knows of."""
        host, port = self.grpc.target
        return f"{host}:{port}"

    @property
    def grpc_address(self) -> str:
        """For clients."""
        return f"127.0.0.1:{self.grpc.port}"

    def cut_connections(self) -> None:
        self.http.cut()
        self.grpc.cut()

    async def die_and_start_again(self) -> None:
        await self.die()
        self.process, addresses = await _serve(self.folder, self.model)
        self.http.lead_to(*addresses["http"])
        self.grpc.lead_to(*addresses["grpc"])

    async def die(self) -> None:
        """As by `kill -9`."""
        self.process.kill()
        await self.process.communicate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "config.yaml").write_text(CONFIG.replace("llm: recalls", "llm: gpt-4o"))
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(FakeOpenAI())
        process, addresses = await _serve(folder, model)
        links = [await Link.to(*addresses[name]) for name in ("http", "grpc")]
        for link in links:
            stack.push_async_callback(link.close)
        site = Site(model, folder, process, *links)
        stack.push_async_callback(site.die)
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(request: pytest.FixtureRequest, site: Site) -> AsyncIterator[Driver]:
    """One of the published clients over one of its transports, given as the parameter."""
    published: Published
    published, transport = request.param
    if lacking := published.lacking:
        why = f"the set-up has not made {lacking}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    driver = await Driver.start(published, site.agent, transport, site.grpc_address)
    yield driver
    await driver.close()


async def _serve(folder: Path, model: FakeOpenAI) -> tuple[Process, Mapping[str, tuple[str, int]]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HECTOR_")}
    process = await asyncio.create_subprocess_exec(
        HECTOR,
        *("serve", "--port", "0"),
        cwd=folder,
        env=environ | {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": model.url, "NO_PROXY": "*"},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    server = await ready(process)
    (http, grpc) = re.findall(r"127\.0\.0\.1:(\d+)", server.lines[0])
    return process, {"http": ("127.0.0.1", int(http)), "grpc": ("127.0.0.1", int(grpc))}
