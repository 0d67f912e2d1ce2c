"""How a turn's events become what is printed."""

import asyncio
from collections.abc import Sequence

import pytest

from hector.cli.exchange import ReplyWriter, Request, exchange, failure, session_line
from hector.domain.events import (
    TextDelta,
    ThinkingDelta,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    TurnWaiting,
)
from hector.domain.ids import SessionKey
from hector.domain.messages import ModelMessage, StoredMessage, Text, ToolCall, ToolResult
from hector.domain.turns import Turn, TurnState
from hector.runtime.handle import TurnHandle
from tests.server.site import open_scripted

KEY = SessionKey("a", "", "s")
CALL = ToolCall("1", "clock", "{}")


def ended(reply: str, state: TurnState = TurnState.COMPLETED, error: str | None = None) -> TurnEnded:
    messages = (StoredMessage(ModelMessage((Text(reply),)), 2, "t"),) if reply else ()
    return TurnEnded(Turn("t", KEY, state, error=error, messages=messages))


async def printed(events: Sequence[TurnEvent], *, label: str = "") -> str:
    pieces: list[str] = []

    async def write(text: str) -> None:
        pieces.append(text)

    writer = ReplyWriter(write, label=label, tells_tools=True)
    for event in events:
        await writer.show(event)
    return "".join(pieces)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        pytest.param([TextDelta("Hel"), TextDelta("lo"), ended("Hello")], "Hello\n", id="streamed"),
        pytest.param([ended("Hello")], "Hello\n", id="in one piece"),
        pytest.param([TextDelta("Hel"), ended("Hello")], "Hello\n", id="streamed in part"),
        pytest.param([TextDelta("Hello\n"), ended("Hello\n")], "Hello\n", id="ends its line itself"),
        pytest.param([ended("")], "", id="silent"),
        pytest.param(
            [TurnStarted("t"), ThinkingDelta("hm"), ended("Hi")], "Hi\n", id="thinking stays inside"
        ),
        pytest.param(
            [
                TextDelta("Let me see"),
                ToolStarted(CALL),
                ToolFinished(ToolResult("1", "clock", "noon")),
                TextDelta("Noon."),
                ended("Noon."),
            ],
            "Let me see\nNoon.\n",
            id="text before a tool call",
        ),
        pytest.param(
            [ToolStarted(CALL), ended("Which zone?", TurnState.INPUT_REQUIRED)],
            "Which zone?\n",
            id="a tool's question",
        ),
        pytest.param([TextDelta("Hel"), ended("", TurnState.FAILED, "gone")], "Hel\n", id="broken off"),
        pytest.param([TextDelta("Hey"), ended("Hello")], "Hey\nHello\n", id="other than what was streamed"),
    ],
)
async def test_the_reply_is_printed_once_and_ends_its_line(events: list[TurnEvent], text: str) -> None:
    assert await printed(events) == text


async def test_the_label_stands_before_each_thing_that_is_said() -> None:
    events: list[TurnEvent] = [
        TextDelta("Wait"),
        ToolStarted(CALL),
        TextDelta("No"),
        TextDelta("on."),
        ended("Noon."),
    ]
    assert await printed(events, label="a> ") == "a> Wait\na> Noon.\n"


async def test_waiting_and_tools_are_told_beside_the_reply(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[TurnEvent] = [TurnWaiting("t", 2), ToolStarted(CALL), ended("Hi")]
    assert await printed(events) == "Hi\n"
    assert capsys.readouterr().err == (
        "the session is busy: waiting for 2 turns before this one\n  (runs clock)\n"
    )


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        (Turn("t", KEY, TurnState.COMPLETED), None),
        (Turn("t", KEY, TurnState.INPUT_REQUIRED), None),
        (Turn("t", KEY, TurnState.FAILED, "model_auth", "the key is refused"), "the key is refused"),
        (Turn("t", KEY, TurnState.FAILED, "crashed"), "the turn failed: crashed"),
        (
            Turn("t", KEY, TurnState.CANCELED, "session deleted", "the session was deleted meanwhile"),
            "the turn is canceled: the session was deleted meanwhile",
        ),
        (Turn("t", KEY, TurnState.CANCELED, "max_wait"), "the turn is canceled: max_wait"),
    ],
)
def test_a_turn_without_an_answer_says_why(turn: Turn, told: str | None) -> None:
    assert failure(turn) == told


@pytest.mark.parametrize(
    ("new", "messages", "line"),
    [
        (True, 0, "session work: new"),
        (False, 1, "session work: resumed, 1 message"),
        (False, 4, "session work: resumed, 4 messages"),
    ],
)
def test_a_session_is_new_or_resumed(new: bool, messages: int, line: str) -> None:
    assert session_line("work", new=new, messages=messages) == line


def test_a_session_line_is_one_line_whatever_the_id() -> None:
    assert session_line("a\nsession b\t\r", new=True, messages=0) == "session a\\nsession b\\t\\r: new"


async def test_who_stops_twice_stops_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, _ = await open_scripted()
    cancel, stopping, slow = runtime.cancel, asyncio.Event(), asyncio.Event()

    async def slowly(*names: str) -> Turn:
        stopping.set()
        await slow.wait()
        return await cancel(*names)

    monkeypatch.setattr(runtime, "cancel", slowly)
    taken: asyncio.Future[TurnHandle] = asyncio.get_running_loop().create_future()

    async def write(text: str) -> None:
        pass

    request = Request("a", "", "wait g", session_id="s", task_id=None)
    answering = asyncio.ensure_future(exchange(runtime, request, ReplyWriter(write), taken.set_result))
    handle = await taken
    answering.cancel()
    await stopping.wait()
    answering.cancel()
    await asyncio.sleep(0)
    assert not answering.done()
    slow.set()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert (await handle.result()).state is TurnState.CANCELED
    await runtime.close()
