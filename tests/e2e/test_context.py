"""What the model is sent of a long conversation: over restarts and kills, and as the commands show it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from hector.domain.tokens import MESSAGE_TOKENS
from hector.memory.context import SUMMARY_HEAD
from hector.memory.tokens import counter_for
from tests.e2e.conftest import Run, Server
from tests.e2e.test_serve import send
from tests.fakes.openai_server import Behaviour, FakeOpenAI

Serve: TypeAlias = Callable[..., Awaitable[Server]]

BUDGET = 1000
FILLER = "and this is what people say to each other of an evening " * 4
TOKENS = counter_for("gpt-4o")


def configure(folder: Path, **working: object) -> None:
    path = folder / "config.yaml"
    path.write_text(f"{path.read_text()}    memory: {{working: {json.dumps(working)}}}\n")


def turns(fake: FakeOpenAI) -> list[Any]:
    return [body["messages"] for body in fake.bodies if "response_format" not in body]


def summaries(fake: FakeOpenAI) -> int:
    return sum("response_format" in body for body in fake.bodies)


def text_of(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def conversation(messages: list[Mapping[str, Any]]) -> list[str]:
    """All but the instructions and the newest message."""
    return [text_of(each) for each in messages if each["role"] not in ("system", "developer")][:-1]


def fact(number: int) -> str:
    return f"My code {number} is CODE-{number}.\n{FILLER}"


def numbered(number: int) -> str:
    return f"My number {number} is ALPHA-{number} and one two three four"


async def test_a_long_talk_stays_within_its_budget_and_its_summaries_outlive_kills(
    folder: Path, serve: Serve, fake: FakeOpenAI, run: Run
) -> None:
    configure(folder, budget=BUDGET)
    server = await serve()
    kills = 0
    for number in range(30):
        if number % 7 < 6:
            await send(server, fact(number))
            continue
        # The turn never gets its answer, or a summary that is just being made.
        fake.behave(Behaviour(hold=True))
        sent = asyncio.create_task(send(server, fact(number)))
        kills += 1
        await fake.until(lambda wanted=kills: fake.held == wanted)  # type: ignore[misc]
        server.process.kill()
        await asyncio.wait([sent])
        server = await serve()
    assert kills == 4
    shown = json.loads((await run("sessions", "context", "s", "--json")).out)
    await send(server, "What is my code 0?")

    for messages in turns(fake):
        before = conversation(messages)
        assert sum(MESSAGE_TOKENS + TOKENS.count(text) for text in before) <= BUDGET
    *_, last = turns(fake)
    assert all(f"CODE-{number}." in "".join(conversation(last)) for number in range(30))
    assert summaries(fake) < 12
    assert shown["summary"]["throughSeq"] > 40
    rest = [each["parts"][0]["text"] for each in shown["messages"]]
    assert conversation(last) == [SUMMARY_HEAD + shown["summary"]["text"], *rest]


async def test_what_would_be_sent_is_shown_with_its_tokens(folder: Path, run: Run) -> None:
    configure(folder, budget=120)
    for number in range(4):
        await run("call", "-s", "s", "assistant", numbered(number))
    shown = await run("sessions", "context", "s")
    assert shown.status == 0
    assert "\n\nsummary of #1 to #" in shown.out
    assert "  - My number 0 is ALPHA-0 and one two three four\n" in shown.out
    assert " · agent · " in shown.out
    made = json.loads((await run("sessions", "context", "s", "--json")).out)
    assert made["budget"] == 120
    parts = [made["summary"], *made["messages"]]
    assert sum(each["tokens"] for each in parts) == made["messageTokens"] <= 120
    assert made["tokens"] == made["messageTokens"] + made["instructions"]["tokens"]
    seqs = [each["seq"] for each in made["messages"]]
    assert seqs == list(range(made["summary"]["throughSeq"] + 1, 9))


async def test_of_no_session_there_is_nothing_to_show(run: Run) -> None:
    missing = await run("sessions", "context", "none")
    assert (missing.status, missing.err) == (1, "Error: session 'none' not found\n")


async def test_a_chat_shows_what_would_be_sent_and_takes_it_for_no_message(run: Run) -> None:
    ended = await run("chat", "-s", "s", "assistant", stdin="/context\nMy name is Ada\n/context\n")
    assert ended.status == 0
    assert ended.out.count("session s · agent assistant · ") == 2
    assert "\n\nno messages\n" in ended.out
    assert "\n\n#1 · user · 9 tokens\n  My name is Ada\n\n#2 · agent · " in ended.out
    assert "2 messages" in (await run("chat", "-s", "s", "assistant")).err


async def test_a_chat_with_a_server_says_where_it_is_shown(serve: Serve, run: Run) -> None:
    server = await serve()
    ended = await run("chat", "--server", server.url, "assistant", stdin="/context\n")
    assert ended.status == 0
    assert "only where the server runs: hector sessions context SESSION --agent AGENT\n" in ended.err
    assert ended.out == ""


async def test_a_call_that_has_to_summarise_first_says_so(folder: Path, serve: Serve, run: Run) -> None:
    configure(folder, budget=120)
    for number in range(3):
        await run("call", "-s", "s", "assistant", numbered(number))
    here = await run("call", "-s", "s", "assistant", "And now some other words " * 5)
    assert "(the conversation has grown long: it is summarised first)\n" in here.err
    server = await serve()
    there = await run("call", "--server", server.url, "-s", "s", "assistant", "Which is my number 0?")
    assert "(the conversation has grown long: it is summarised first)\n" in there.err
    assert "ALPHA-0" in there.out
