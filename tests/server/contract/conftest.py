import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from hector.domain.errors import InputRequiredError
from hector.runtime.push.deliveries import PushSettings
from hector.runtime.push.targets import Targets
from hector.tools.function import FunctionTool
from tests.server.contract.serving import Served, serving
from tests.server.contract.spoken import TRANSPORTS

Serve: TypeAlias = Callable[..., Awaitable[Served]]


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """On one loop, for most share a server."""
    for item in items:
        if not isinstance(item, pytest.Function) or item.path.parent != Path(__file__).parent:
            continue
        if iscoroutinefunction(item.function):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest_asyncio.fixture(loop_scope="module")
async def serve() -> AsyncIterator[Serve]:
    """A server of one's own, with `server_keys`."""
    async with AsyncExitStack() as stack:

        async def serve(**server_keys: Any) -> Served:
            return await stack.enter_async_context(serving(**_keys() | server_keys))

        yield serve


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Served]:
    async with serving(**_keys()) as shared:
        yield shared


@pytest_asyncio.fixture(loop_scope="module")
async def served(shared: Served) -> AsyncIterator[Served]:
    """It tells webhooks on this machine and has the tool `ask`, which asks; nothing runs from other tests."""
    yield shared
    for gate in shared.model._gates.values():
        gate.opened.set()
    while shared.model.running:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0)
    shared.model._gates.clear()
    shared.model.requests.clear()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _keys() -> dict[str, Any]:
    return {"tools": [FunctionTool(_ask, "ask")], "push": PushSettings(Targets(["localhost"]))}


def _ask() -> str:
    """Asks."""
    raise InputRequiredError("which city?")
