"""The fake as another process runs it: started by command, told what to do over HTTP."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fakes.openai_server",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    async with httpx.AsyncClient(base_url=url.removesuffix("/v1")) as http:
        yield http
    process.stdin.close()
    assert await process.wait() == 0


def asking(*lines: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": line} for line in lines]}


async def ask(client: httpx.AsyncClient, *lines: str) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=asking(*lines))


async def test_it_answers_from_what_it_is_sent_and_keeps_it(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "my project ID is ALPHA-789", "What is my project ID?")
    assert "ALPHA-789" in answer.json()["choices"][0]["message"]["content"]
    assert "ALPHA-789" not in (await ask(client, "What is my project ID?")).text
    requests = (await client.get("/requests?at_least=2")).json()
    assert [len(body["messages"]) for body in requests] == [2, 1]


async def test_it_fails_as_told_and_then_no_more(client: httpx.AsyncClient) -> None:
    told = {"times": 2, "behaviour": {"status": 429, "headers": {"Retry-After": "7"}}}
    await client.post("/control", json=told)
    answers = [await ask(client, "hi") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "7"


async def test_it_waits_until_it_is_released(client: httpx.AsyncClient) -> None:
    await client.post("/control", json={"behaviour": {"hold": True, "text": "late"}})
    answer = asyncio.create_task(ask(client, "hi"))
    await client.get("/held?at_least=1")
    await client.post("/release")
    assert "late" in (await answer).text


async def test_it_counts_the_clients_that_leave(client: httpx.AsyncClient) -> None:
    await client.post("/control", json={"behaviour": {"hold": True}})
    answer = asyncio.create_task(ask(client, "hi"))
    await client.get("/requests?at_least=1")
    answer.cancel()
    assert (await client.get("/disconnects?at_least=1")).json() == {"count": 1}
