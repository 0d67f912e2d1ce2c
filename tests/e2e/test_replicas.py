"""Several servers on one file: one is stopped or killed in the middle of an answer, and another goes on."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.streams import Reading, blocks
from tests.e2e.conftest import CONFIG, Run, Server
from tests.fakes.openai_server import Behaviour, FakeOpenAI

MESSAGE = {
    "message": {"messageId": "m1", "contextId": "s", "role": "ROLE_USER", "parts": [{"text": "Hello"}]}
}
ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])


@pytest.fixture
async def two(
    folder: Path, fake: FakeOpenAI, serve: Callable[..., Awaitable[Server]]
) -> tuple[Server, Server]:
    more = "server: {drain_timeout: 0}\n"
    (folder / "config.yaml").write_text(CONFIG.replace("llm: recalls", "llm: gpt-4o") + more)
    return await serve(), await serve()


async def read(server: Server, reading: Reading, until: Callable[[Reading], bool]) -> None:
    """One stream of the answer, until it has told enough, or breaks."""
    place = {"last-event-id": reading.place} if reading.place else {}
    url = f"{server.url}/v1/agents/assistant/message:stream"
    async with (
        httpx.AsyncClient(timeout=60) as http,
        http.stream("POST", url, json=MESSAGE, headers=place) as response,
    ):
        assert response.status_code == 200
        async for block in blocks(response):
            reading.take(block)
            if until(reading):
                return


@ENDS
async def test_a_turn_goes_on_at_another_server(
    two: tuple[Server, Server], fake: FakeOpenAI, number: signal.Signals, run: Run
) -> None:
    one, other = two
    fake.behave(Behaviour(hold=True))
    async with httpx.AsyncClient(timeout=60) as http:
        lost = asyncio.create_task(http.post(f"{one.url}/v1/agents/assistant/message:send", json=MESSAGE))
        await fake.until(lambda: fake.held == 1)
        one.process.send_signal(number)
        await one.process.wait()
        (said,) = await asyncio.gather(lost, return_exceptions=True)
        if number == signal.SIGTERM:
            assert isinstance(said, httpx.Response)
            assert (said.status_code, "repeat" in said.text) == (503, True)
        answer = await http.post(f"{other.url}/v1/agents/assistant/message:send", json=MESSAGE)
    task = answer.json()["task"]
    assert task["artifacts"][0]["parts"] == [{"text": "Got it: Hello"}]
    assert len(fake.requests) == 2
    shown: Any = json.loads((await run("sessions", "show", "s", "--json")).out)
    assert [message["parts"][0]["text"] for message in shown["messages"]] == ["Hello", "Got it: Hello"]


@ENDS
async def test_a_stream_goes_on_at_another_server(
    two: tuple[Server, Server], fake: FakeOpenAI, number: signal.Signals
) -> None:
    one, other = two
    # A run that ends before its first batch of events is due stores none, and is told as a whole.
    fake.behave(Behaviour(text="partly said", chunks=2, hold_after=1), Behaviour(hold=True))
    reading = Reading()
    await read(one, reading, lambda reading: bool(reading.text))
    partly = reading.text
    assert partly
    assert "partly said".startswith(partly)
    await fake.until(lambda: fake.held == 1)
    one.process.send_signal(number)
    await one.process.wait()
    await read(other, reading, lambda reading: reading.resets == 1)
    assert not reading.text, "what the first attempt said was discarded"
    await fake.until(lambda: fake.held == 2)
    fake.release()
    await read(other, reading, lambda reading: reading.answer is not None)
    assert reading.answer
    assert (reading.answer.state, reading.text) == ("completed", "Got it: Hello")
    assert (reading.resets, reading.faults) == (1, [])


async def test_a_stream_that_broke_goes_on_where_it_was(two: tuple[Server, Server], fake: FakeOpenAI) -> None:
    one, other = two
    fake.behave(Behaviour(text="a b c d", chunks=4, hold_after=2))
    reading = Reading()
    await read(one, reading, lambda reading: reading.pieces == 2)
    await fake.until(lambda: fake.held == 1)
    # See above: the first batch has been stored.
    await read(other, Reading(), lambda reading: reading.pieces == 2)
    going_on = asyncio.create_task(read(other, reading, lambda reading: reading.answer is not None))
    fake.release()
    await going_on
    assert reading.answer
    assert (reading.answer.state, reading.text) == ("completed", "a b c d")
    assert (reading.resets, reading.faults) == (0, [])
    assert len(fake.requests) == 1
