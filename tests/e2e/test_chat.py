"""`hector chat` at a terminal."""

from pathlib import Path

from tests.e2e.conftest import HECTOR, Run
from tests.e2e.terminal import terminal
from tests.fakes.openai_server import Behaviour, FakeOpenAI

CTRL_C, CTRL_D = "\x03", "\x04"


async def test_ctrl_c_stops_the_turn_and_not_the_chat(
    folder: Path, environ: dict[str, str], fake: FakeOpenAI, run: Run
) -> None:
    async with terminal(HECTOR, "chat", "--session=s", "assistant", cwd=folder, env=environ) as person:
        await person.until("session s: new")
        await person.until("you>")
        person.press("Remember: my project ID is ALPHA-789\r")
        await person.until("assistant> Got it: Remember: my project ID is ALPHA-789")

        await person.until("you>")
        fake.behave(Behaviour(text="one two three", chunks=3, hold_after=1))
        person.press("Count\r")
        await person.until("assistant> one")
        await fake.until(lambda: fake.held == 1)
        person.press(CTRL_C)
        await person.until("(stopped)")
        await fake.until(lambda: fake.disconnects == 1)

        await person.until("you>")
        person.press("What is my project ID?\r")
        await person.until("assistant> You told me: Remember: my project ID is ALPHA-789")
        await person.until("you>")
        person.press("exit\r")
        assert await person.process.wait() == 0

    shown = await run("sessions", "show", "s")
    assert "Count\n  [not answered: canceled]" in shown.out


async def test_ctrl_c_at_the_prompt_clears_the_line_and_twice_ends_the_chat(
    folder: Path, environ: dict[str, str], fake: FakeOpenAI
) -> None:
    async with terminal(HECTOR, "chat", "assistant", cwd=folder, env=environ) as person:
        await person.until("💾 Session ID: cli-chat-")
        await person.until("   Resume later with: --session=cli-chat-")
        await person.until("you>")
        person.press("never sent")
        await person.until("never sent")
        person.press(CTRL_C)
        await person.until("(Ctrl-C again, Ctrl-D or `exit` ends the chat)")
        await person.until("you>")
        person.press("sent\r")
        await person.until("assistant> Got it: sent")
        await person.until("you>")
        person.press(CTRL_C)
        await person.until("(Ctrl-C again")
        await person.until("you>")
        person.press(CTRL_C)
        assert await person.process.wait() == 0
    assert [message["content"] for message in fake.bodies[0]["messages"]] == ["sent"]


async def test_ctrl_d_ends_the_chat(folder: Path, environ: dict[str, str]) -> None:
    async with terminal(HECTOR, "chat", "assistant", cwd=folder, env=environ) as person:
        await person.until("you>")
        person.press(CTRL_D)
        assert await person.process.wait() == 0


async def test_a_failed_turn_is_told_and_the_chat_goes_on(
    folder: Path, environ: dict[str, str], fake: FakeOpenAI
) -> None:
    fake.behave(Behaviour(status=401))
    async with terminal(HECTOR, "chat", "assistant", cwd=folder, env=environ) as person:
        await person.until("you>")
        person.press("Hello\r")
        await person.until("Error: ")
        await person.until("you>")
        person.press("Hello again\r")
        await person.until("assistant> Got it: Hello again")


async def test_a_models_words_do_not_steer_the_terminal(
    folder: Path, environ: dict[str, str], fake: FakeOpenAI
) -> None:
    fake.behave(Behaviour(text="\x1b]0;owned\x07\x1b[2J"))
    async with terminal(HECTOR, "chat", "assistant", cwd=folder, env=environ) as person:
        await person.until("you>")
        person.press("Hello\r")
        await person.until("assistant> \\x1b]0;owned\\x07\\x1b[2J")


async def test_piped_lines_are_answered_one_after_the_other(run: Run, fake: FakeOpenAI) -> None:
    ended = await run(
        "chat", "--session=s", "assistant", stdin="My name is Ada\n\nWhat is my name?\nquit\nx\n"
    )
    assert (ended.status, ended.out) == (0, "Got it: My name is Ada\nYou told me: My name is Ada\n")
    assert len(fake.requests) == 2


async def test_a_failed_turn_of_piped_lines_shows_in_the_status(run: Run, fake: FakeOpenAI) -> None:
    fake.behave(Behaviour(status=401))
    ended = await run("chat", "--session=s", "assistant", stdin="one\ntwo\n")
    assert (ended.status, ended.out) == (1, "Got it: two\n")


TOOL = """\
from hector import InputRequiredError, tool


@tool
def book(seat: str) -> str:
    raise InputRequiredError("Window or aisle?")
"""


async def test_the_next_line_answers_what_the_agent_asks(
    folder: Path, run: Run, fake: FakeOpenAI, environ: dict[str, str]
) -> None:
    (folder / "seats.py").write_text(TOOL)
    environ["PYTHONPATH"] = str(folder)
    config = folder / "config.yaml"
    config.write_text(f"{config.read_text()}    tools: ['seats:book']\n")
    call = {"name": "book", "arguments": '{"seat": "any"}'}
    fake.behave(Behaviour(calls=[call]), Behaviour(text="Booked."))
    ended = await run("chat", "--session=s", "assistant", stdin="Book a seat\nAisle\n")
    assert (ended.status, ended.out) == (0, "Window or aisle?\nBooked.\n")
    shown = await run("sessions", "show", "s")
    assert "not answered" not in shown.out
    assert "calls book" in shown.out
