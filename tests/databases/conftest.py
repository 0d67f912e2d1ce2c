import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
async def nothing_is_left_open() -> AsyncIterator[None]:
    """Asyncpg leaves a connection with TLS that was refused to say goodbye while it goes on.

    A loop that ends before that warns of the open transport, in whatever test comes next.
    """
    yield
    loop: Any = asyncio.get_running_loop()
    for transport in list(loop._transports.values()):
        transport.abort()
    await asyncio.sleep(0)
