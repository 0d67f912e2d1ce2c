"""`hector sessions` on a real store."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIG, Run, Start


@pytest.fixture
async def talked(run: Run) -> None:
    for text in ("My name is Ada", "What is my name?"):
        await run("call", "--session=one", "assistant", text)
    await run("call", "--session=two", "--user=bob", "assistant", "Hello")


@pytest.mark.usefixtures("talked")
async def test_they_are_listed_by_user(run: Run) -> None:
    mine, bobs = await run("sessions", "list"), await run("sessions", "list", "--user", "bob")
    assert mine.out.endswith("4 messages  one\n")
    assert bobs.out.endswith("2 messages  two  bob\n")
    everybodys = await run("sessions", "list", "--all-users", "--json")
    assert [(each["id"], each["user"]) for each in json.loads(everybodys.out)["sessions"]] == [
        ("two", "bob"),
        ("one", ""),
    ]


@pytest.mark.usefixtures("talked")
async def test_a_list_goes_on_where_it_ended(run: Run) -> None:
    first = json.loads((await run("sessions", "list", "--all-users", "--limit=1", "--json")).out)
    cursor = first["nextCursor"]
    rest = await run("sessions", "list", "--all-users", "--limit=1", f"--cursor={cursor}")
    assert rest.out.endswith("  one\n")


@pytest.mark.usefixtures("talked")
async def test_messages_are_paged_from_the_newest(run: Run) -> None:
    newest = await run("sessions", "show", "one", "--limit", "2")
    assert "What is my name?\n" in newest.out
    assert "Got it" not in newest.out
    assert newest.err == "\n2 earlier messages: --before=3\n"
    before = await run("sessions", "show", "one", "--before=3")
    assert before.out.endswith("  Got it: My name is Ada\n")
    assert before.err == ""


@pytest.mark.usefixtures("talked")
async def test_deleting_asks_first(run: Run) -> None:
    kept = await run("sessions", "delete", "one", stdin="n\n")
    assert kept.status == 1
    assert "Delete session one of agent assistant (4 messages)?" in kept.err
    assert (await run("sessions", "show", "one")).status == 0
    gone = await run("sessions", "delete", "one", stdin="y\n")
    assert gone.status == 0
    missing = await run("sessions", "show", "one")
    assert (missing.status, missing.err) == (1, "Error: session 'one' not found\n")


@pytest.mark.usefixtures("talked")
async def test_deleting_need_not_ask(run: Run) -> None:
    assert (await run("sessions", "delete", "one", "--yes")).status == 0
    again = await run("sessions", "delete", "one", "--yes")
    assert (again.status, again.err) == (1, "Error: session 'one' not found\n")


async def test_looking_runs_nothing_that_others_left(folder: Path, start: Start, run: Run) -> None:
    (folder / "config.yaml").write_text(
        CONFIG.replace("model: recall", "model: obey") + "turns: {on_crash: fail}\n"
    )
    running = await start("call", "--session=s", "assistant", "stream 2 begun\nwait forever")
    assert running.stdout
    await running.stdout.readexactly(1)
    waiting = await start("call", "--session=s", "assistant", "say second")
    assert waiting.stderr
    assert await waiting.stderr.readline() == b"session s: resumed, 1 message\n"
    assert b"busy" in await waiting.stderr.readline()
    for process in (waiting, running):
        process.kill()
        await process.wait()

    for _ in range(2):
        listed = await run("sessions", "list", "--json")
        (session,) = json.loads(listed.out)["sessions"]
        assert (session["messageCount"], session["waiting"]) == (1, 1)

    ended = await run("call", "--session=s", "assistant", "say third")
    assert ended.out == "third\n"
    shown = json.loads((await run("sessions", "show", "s", "--json")).out)
    assert [message["parts"][0]["text"] for message in shown["messages"][1:]] == [
        "say second",
        "second",
        "say third",
        "third",
    ]


async def test_an_id_cannot_pass_for_a_line_of_the_list(run: Run) -> None:
    session, user = "a\nfake", "u\t\r"
    told = await run("call", "--session", session, "--user", user, "assistant", "Hello")
    assert told.err == "session a\\nfake: new\n"
    listed = await run("sessions", "list", "--all-users")
    assert listed.out.endswith("2 messages  a\\nfake  u\\t\\r\n")
    shown = await run("sessions", "show", session, "--user", user)
    assert shown.out.startswith("session a\\nfake · agent assistant · ")
    gone = await run("sessions", "delete", session, "--user", user, stdin="y\n")
    assert "Delete session a\\nfake of agent" in gone.err
    assert "session a\\nfake of agent assistant is deleted\n" in gone.err
