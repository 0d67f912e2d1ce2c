"""`hector call`: what goes where, and how it ends."""

import asyncio
import json
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import Run, Server, Start
from tests.fakes.openai_server import Behaviour, FakeOpenAI


async def test_the_answer_is_printed_as_it_is_written(start: Start, fake: FakeOpenAI) -> None:
    fake.behave(Behaviour(text="one two three", chunks=3, hold_after=1))
    process = await start("call", "--session=s", "assistant", "Count")
    assert process.stdout
    assert await process.stdout.readexactly(4) == b"one "
    fake.release()
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"two three\n", b"session s: new\n")


async def test_without_streaming_it_is_printed_whole(run: Run, fake: FakeOpenAI) -> None:
    ended = await run("call", "assistant", "Hello", "--no-stream")
    assert (ended.status, ended.out) == (0, "Got it: Hello\n")
    assert not fake.bodies[0].get("stream")


async def test_a_new_session_tells_its_id_and_can_be_gone_on_with(run: Run) -> None:
    first = await run("call", "assistant", "My name is Ada")
    session = first.err.removeprefix("session ").removesuffix(": new\n")
    second = await run("call", "-s", session, "assistant", "What is my name?")
    assert second.out == "You told me: My name is Ada\n"


async def test_json_tells_all_of_the_turn(run: Run) -> None:
    ended = await run("call", "--json", "--session=s", "assistant", "Hello there")
    told = json.loads(ended.out)
    assert told.pop("task")
    assert told.pop("messageId")
    assert told == {
        "session": "s",
        "newSession": True,
        "earlierMessages": 0,
        "state": "completed",
        "reply": "Got it: Hello there",
        "reason": None,
        "error": None,
        "retryable": False,
        "usage": {"inputTokens": 2, "outputTokens": 4},
    }


async def test_a_message_may_come_from_standard_input(run: Run) -> None:
    ended = await run("call", "assistant", "-", stdin="two\nlines ünd more\n")
    assert ended.out == "Got it: two\nlines ünd more\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nobody", "hi"), "AGENT: no agent named 'nobody'"),
        (("assistant", " "), "MESSAGE: is empty"),
        (("--session=", "assistant", "hi"), "--session: must not be empty"),
        (("--session", "x" * 192, "assistant", "hi"), "--session: has 192 characters"),
        (("--user", "x" * 256, "assistant", "hi"), "--user: has 256 characters"),
    ],
)
async def test_bad_arguments_end_with_2(run: Run, arguments: tuple[str, ...], told: str) -> None:
    ended = await run("call", *arguments)
    assert ended.status == 2
    assert ended.err.startswith(f"Error: {told}")
    assert ended.out == ""


async def test_every_fault_of_the_configuration_is_a_line(folder: Path, run: Run) -> None:
    (folder / "config.yaml").write_text("agents:\n  a: {llm: claud}\n  b: {llm: local, session_store: x}\n")
    ended = await run("call", "a", "hi")
    first, second = ended.err.splitlines()
    assert ended.status == 2
    assert first.startswith("config.yaml:2: agents.a.llm: ")
    assert second.startswith("config.yaml:3: agents.b.session_store: ")


async def test_a_failed_turn_ends_with_1_and_says_why(run: Run, fake: FakeOpenAI) -> None:
    fake.behave(Behaviour(status=401))
    ended = await run("call", "--session=s", "assistant", "Hello")
    assert (ended.status, ended.out) == (1, "")
    assert "Error: " in ended.err
    assert "the provider of 'gpt-4o' refuses the API key" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_ctrl_c_and_sigterm_cancel_the_turn(
    start: Start, run: Run, fake: FakeOpenAI, number: signal.Signals, status: int
) -> None:
    fake.behave(Behaviour(text="one two", chunks=2, hold_after=1))
    process = await start("call", "--session=s", "assistant", "Count")
    assert process.stdout
    await process.stdout.readexactly(1)
    process.send_signal(number)
    _, err = await process.communicate()
    assert process.returncode == status
    assert b"Traceback" not in err
    await fake.until(lambda: fake.disconnects == 1)
    shown = await run("sessions", "show", "s", "--json")
    assert [message.get("notAnswered") for message in json.loads(shown.out)["messages"]] == ["canceled"]


async def test_a_reader_that_leaves_does_not_stop_the_turn(start: Start, run: Run, fake: FakeOpenAI) -> None:
    fake.behave(Behaviour(text="one two three", chunks=3, hold_after=1))
    process = await start("call", "--session=s", "assistant", "Count")
    assert process.stdout
    assert process.stderr
    await process.stdout.readexactly(1)
    process.stdout._transport.close()  # type: ignore[attr-defined]  # as `| head -c 1` does
    await asyncio.sleep(0)
    fake.release()
    assert await process.stderr.read() == b"session s: new\n"
    assert await process.wait() == 0
    shown = await run("sessions", "show", "s", "--json")
    *_, answer = json.loads(shown.out)["messages"]
    assert answer["parts"] == [{"text": "one two three"}]


async def test_a_call_beside_a_server_waits_for_its_session(
    serve: Callable[..., Awaitable[Server]], start: Start, run: Run, fake: FakeOpenAI
) -> None:
    server = await serve()
    fake.behave(Behaviour(hold=True))
    first = await start("call", "--session=s", "assistant", "My name is Ada")
    await fake.until(lambda: fake.held == 1)
    second = await start("call", "--session=s", "assistant", "What is my name?")
    assert second.stderr
    assert await second.stderr.readline() == b"session s: resumed, 1 message\n"
    assert await second.stderr.readline() == b"the session is busy: waiting for 1 turn before this one\n"
    fake.release()
    assert (await first.communicate())[0] == b"Got it: My name is Ada\n"
    assert (await second.communicate())[0] == b"You told me: My name is Ada\n"
    assert server.process.returncode is None
    ended = await run("call", "--session=s", "assistant", "What is my name?")
    assert "resumed, 4 messages" in ended.err


async def test_users_do_not_meet(run: Run) -> None:
    await run("call", "--user=ada", "--session=s", "assistant", "My name is Ada")
    ended = await run("call", "--user=bob", "--session=s", "assistant", "What is my name?")
    assert (ended.out, ended.err) == ("I do not know.\n", "session s: new\n")


async def test_it_keeps_no_events_beyond_their_time(folder: Path, run: Run) -> None:
    config = folder / "config.yaml"
    text = config.read_text().replace("model: recall", "model: obey")
    config.write_text(f"{text}\nturns: {{event_retention: 0}}\n")
    ended = await run("call", "--session=s", "assistant", "stream 2 ab\npause 0.3\nsay c")
    assert ended.out.endswith("c\n"), ended.err
    with closing(sqlite3.connect(folder / "data" / "sessions.db")) as tables:
        assert tables.execute("SELECT count(*) FROM turn_events").fetchone() == (0,)
