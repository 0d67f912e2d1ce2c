"""Lists of tasks, by the published clients that ask for them: those of A2A 1.0."""

import pytest

from tests.clients.conftest import Site
from tests.clients.driver import NPM_NEWEST, PYTHON_NEWEST, Driver

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize(
        "client",
        [
            pytest.param((published, transport), id=f"{published.name}-{transport}")
            for published in (PYTHON_NEWEST, NPM_NEWEST)
            for transport in ("HTTP+JSON", "JSONRPC", "GRPC")
        ],
        indirect=True,
    ),
]


async def test_it_turns_the_pages_of_a_list(client: Driver, site: Site) -> None:
    context = f"{client.published.name}-{client.transport}"
    made = [
        await client.do("send", text=f"Number {n}", context=context, message=f"{context}-{n}")
        for n in range(3)
    ]
    await client.do("send", text="Elsewhere", context=f"{context}-not", message=f"{context}-not")
    first, second = await client.begin("list", context=context, size=2).rest()
    assert (first["size"], first["total"], second["total"]) == (2, 3, 3)
    assert first["tasks"] + second["tasks"] == made[::-1]
    await site.die_and_start_again()
    (whole,) = await client.begin("list", context=context, size=3).rest()
    assert whole["tasks"] == made[::-1]
