from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import pytest

from hector.domain.errors import InputRequiredError
from hector.runtime.push.deliveries import PushSettings
from hector.runtime.push.targets import Targets
from hector.tools.function import FunctionTool
from tests.server.contract.serving import Served, serving
from tests.server.contract.spoken import TRANSPORTS

Serve: TypeAlias = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A server with `server_keys`; it tells webhooks on this machine, and has the tool `ask`, which asks."""
    async with AsyncExitStack() as stack:

        async def serve(**server_keys: Any) -> Served:
            keys: dict[str, Any] = {
                "tools": [FunctionTool(_ask)],
                "push": PushSettings(Targets(["localhost"])),
            }
            return await stack.enter_async_context(serving(**keys | server_keys))

        yield serve


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _ask(answer: str = "") -> str:
    """Asks, where it is given no answer."""
    if not answer:
        raise InputRequiredError("which city?")
    return answer


_ask.__name__ = "ask"
