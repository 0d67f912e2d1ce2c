"""The stream of a turn as its client sees it."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from hector.domain.errors import InputRequiredError, OutcomeUnknownError
from hector.domain.events import (
    EventId,
    Summarizing,
    TextDelta,
    Told,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnEvent,
    TurnReset,
    TurnStarted,
    TurnWaiting,
)
from hector.domain.ids import SessionKey
from hector.domain.messages import ModelMessage, StoredMessage, Text, ToolCall, ToolResult
from hector.domain.turns import Turn, TurnState
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.narrator import Narrator
from hector.server.http.responses import EventStream, to_json
from hector.tools.function import FunctionTool
from tests.server.site import Site, StartSite, events, reply, said

KEY = SessionKey("a", "u", "s")


async def stream(site: Site, text: str, session: str = "s", **more: Any) -> list[Any]:
    answer = await site.http.post("/v1/agents/a/message:stream", **said(text, session, **more))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    return events(answer)


def kinds(found: list[Any]) -> list[str]:
    return [next(iter(event)) for event in found]


def collected(found: list[Any], text: str = "") -> str:
    """The reply as a client puts it together, who has some text already."""
    for event in found:
        if piece := event.get("artifactUpdate"):
            new = "".join(part["text"] for part in piece["artifact"]["parts"])
            text = text + new if piece.get("append") else new
    return text


def ended(text: str, state: TurnState = TurnState.COMPLETED) -> TurnEnded:
    messages = (StoredMessage(ModelMessage((Text(text),)), 2, "t"),) if text else ()
    return TurnEnded(Turn("t", KEY, state, messages=messages))


async def test_a_stream_is_the_task_the_reply_in_pieces_and_the_end(site: Site) -> None:
    found = await stream(site, "stream 3 hello")
    assert kinds(found) == ["task", *["artifactUpdate"] * 4, "statusUpdate"]
    task = found[0]["task"]
    assert task["status"]["state"] == "TASK_STATE_WORKING"
    assert collected(found) == "hello"
    assert [event["artifactUpdate"].get("append", False) for event in found[1:5]] == [False, True, True, True]
    assert [event["artifactUpdate"].get("lastChunk", False) for event in found[1:5]] == [
        False,
        False,
        False,
        True,
    ]
    assert found[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert found[-1]["statusUpdate"]["final"] is True
    assert {event["artifactUpdate"]["artifact"]["artifactId"] for event in found[1:5]} == {
        f"reply-{task['id']}"
    }


async def test_the_reply_that_was_streamed_is_the_reply_that_is_stored(site: Site) -> None:
    found = await stream(site, "stream 5 Grüße 🎉")
    task_id = found[0]["task"]["id"]
    stored = (await site.http.get(f"/v1/agents/a/tasks/{task_id}")).json()
    assert stored["artifacts"][0]["parts"] == [{"text": collected(found)}]


@pytest.mark.parametrize(
    ("part", "working", "done"),
    [
        ({"text": "stream 2 ab"}, "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"),
        ({"kind": "text", "text": "stream 2 ab"}, "working", "completed"),
    ],
)
async def test_streams_speak_the_callers_dialect(site: Site, part: Any, working: str, done: str) -> None:
    body = {"message": {"role": "user", "parts": [part]}}
    found = events(await site.http.post("/v1/agents/a/message:stream", json=body))
    assert found[0]["task"]["status"]["state"] == working
    assert found[-1]["statusUpdate"]["status"]["state"] == done
    assert found[-1]["statusUpdate"].get("final") is ("kind" in part or None)
    assert collected(found) == "ab"


async def test_thinking_is_not_streamed(site: Site) -> None:
    assert "aha" not in json.dumps(await stream(site, "think aha\nsay x"))


async def test_text_before_a_tool_call_is_replaced_by_the_answer(start: StartSite) -> None:
    def clock() -> str:
        """The time."""
        return "noon"

    site = await start(tools=[FunctionTool(clock)])
    found = await stream(site, "stream 2 let me see\ncall clock\nstream 2 it is noon")
    assert collected(found) == "it is noon"
    pieces = [event["artifactUpdate"] for event in found if "artifactUpdate" in event]
    # The second of the two that begin anew comes with the answer, not only with its end.
    assert [piece.get("append", False) for piece in pieces] == [False, True, False, True, True]
    steps = [event["statusUpdate"].get("metadata") for event in found if "statusUpdate" in event]
    assert [step["toolCall"]["status"] for step in steps[:-1]] == ["started", "finished"]
    assert {step["toolCall"]["name"] for step in steps[:-1]} == {"clock"}


async def test_a_failed_turn_ends_its_stream_with_the_reason(site: Site) -> None:
    found = await stream(site, "stream 2 ab\nfail unreachable")
    last = found[-1]["statusUpdate"]
    assert last["status"]["state"] == "TASK_STATE_FAILED"
    assert last["status"]["message"]["content"] == [{"text": "the script says unreachable"}]
    assert last["metadata"]["retryable"] is True


async def test_who_waits_sees_the_task_submitted_and_then_working(site: Site) -> None:
    gate = site.model.gate("g")
    await site.ask("wait g", "s", configuration={"blocking": False})
    waiting = asyncio.create_task(stream(site, "say x"))
    await site.until_waiting("s")
    gate.opened.set()
    found = await waiting
    assert found[0]["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"
    assert found[1]["statusUpdate"]["status"]["state"] == "TASK_STATE_WORKING"
    assert collected(found) == "x"


async def test_a_repeat_of_an_answered_message_is_the_whole_task_at_once(site: Site) -> None:
    first = await stream(site, "say x", message_id="m")
    found = await stream(site, "say x", message_id="m")
    assert kinds(found) == ["task"]
    assert found[0]["task"]["id"] == first[0]["task"]["id"]
    assert found[0]["task"]["artifacts"][0]["parts"] == [{"text": "x"}]


async def test_a_repeat_of_a_running_message_gets_all_from_its_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = asyncio.Semaphore(0)
    send = site.runtime.send

    async def watched(*args: Any, **more: Any) -> Any:
        handle = await send(*args, **more)
        taken.release()
        return handle

    monkeypatch.setattr(site.runtime, "send", watched)
    gate = site.model.gate("g")
    first = asyncio.create_task(stream(site, "stream 2 ab\nwait g\nsay c", message_id="m"))
    await gate.reached.wait()
    second = asyncio.create_task(stream(site, "stream 2 ab\nwait g\nsay c", message_id="m"))
    for _ in range(2):
        await taken.acquire()
    gate.opened.set()
    assert collected(await second) == collected(await first) == "abc"
    assert len(site.model.requests) == 1


async def test_a_bad_request_is_an_http_error_and_no_stream(site: Site) -> None:
    answer = await site.http.post("/v1/agents/a/message:stream", json={"message": {}})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")


async def test_a_stream_that_breaks_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(handle: object) -> Any:
        yield Told(TurnStarted("t"), EventId(1, 1))
        raise OutcomeUnknownError("nobody knows; the message is safe to repeat")

    monkeypatch.setattr("hector.runtime.handle.TurnHandle.told", lost)
    answer = await site.http.post("/v1/agents/a/message:stream", **said("say x"))
    assert "event: error\ndata: {" in answer.text
    assert events(answer)[-1]["error"]["code"] == "outcome_unknown"
    assert kinds(events(answer))[0] == "task"


async def test_a_client_that_leaves_does_not_stop_the_turn(site: Site) -> None:
    gate = site.model.gate("g")
    leaving = asyncio.create_task(stream(site, "stream 2 ab\nwait g\nsay done"))
    await gate.reached.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    gate.opened.set()
    await site.ask("say next", "s")
    assert len((await site.http.get("/v1/agents/a/sessions/s")).json()["messages"]) == 4


async def test_silence_is_broken_by_comments() -> None:
    go_on = asyncio.Event()
    comments = asyncio.Event()
    sent: list[bytes] = []

    async def told() -> Any:
        yield None, {"n": 1}
        await go_on.wait()
        yield "1.2", {"n": 2}

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        if sent[-1].startswith(b":"):
            comments.set()

    response = asyncio.create_task(EventStream(told(), keep_alive=0.001)({}, receive, send))
    await comments.wait()
    go_on.set()
    await response
    data = [chunk for chunk in sent if chunk and not chunk.startswith(b":")]
    assert data == [b'data: {"n":1}\n\n', b'id: 1.2\ndata: {"n":2}\n\n']


async def test_when_the_client_has_left_nothing_is_left_behind() -> None:
    closed = asyncio.Event()
    begun = asyncio.Event()

    async def told() -> Any:
        try:
            yield None, {"n": 1}
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def receive() -> Any:
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            begun.set()

    await EventStream(told())({}, receive, send)
    assert closed.is_set()
    assert len(asyncio.all_tasks()) == 1


def test_half_a_character_reaches_the_client_and_meets_its_other_half() -> None:
    halves = [json.loads(to_json({"text": half}))["text"] for half in ("\ud83c", "\udf89")]
    assert "".join(halves).encode("utf-16", "surrogatepass").decode("utf-16") == "🎉"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ([TextDelta("a"), TextDelta("b"), ended("ab")], "ab"),
        ([ended("ab")], "ab"),
        ([TextDelta("a"), ended("ab")], "ab"),
        (
            [
                TextDelta("x"),
                ToolStarted(ToolCall("c", "f", "{}")),
                ToolFinished(ToolResult("c", "f", "r")),
                ended("ab"),
            ],
            "ab",
        ),
        ([TextDelta("ab"), ToolStarted(ToolCall("c", "f", "{}")), ended("ab")], "ab"),
        ([TurnWaiting("t", 1), TurnStarted("t"), TextDelta("ab"), ended("ab")], "ab"),
    ],
)
@pytest.mark.parametrize("dialect", Dialect)
def test_whatever_happens_the_reply_that_is_put_together_is_the_stored_one(
    dialect: Dialect, told: list[TurnEvent], text: str
) -> None:
    narrator = Narrator(dialect, KEY, "t")
    found = [narrator.opening(TurnState.WORKING), *_tell(narrator, map(Told, told))]
    assert collected(found) == text
    assert kinds(found)[-1] == "statusUpdate"


def test_a_question_is_no_reply() -> None:
    narrator = Narrator(Dialect.V1, KEY, "t")
    narrator.opening(TurnState.WORKING)
    (end,) = narrator.tell(Told(ended("which?", TurnState.INPUT_REQUIRED)))
    status: Any = end["statusUpdate"]
    assert status["status"]["message"]["parts"] == [{"text": "which?"}]


def numbered(attempt: int, *events: TurnEvent) -> list[Told]:
    return [Told(event, EventId(attempt, number)) for number, event in enumerate(events, 1)]


FIRST = numbered(1, TurnStarted("t"), TextDelta("a"), TextDelta("b"), TextDelta("c"))
SECOND = numbered(2, TurnStarted("t"), TextDelta("x"), TextDelta("y"))
CALLING = numbered(1, TextDelta("hm"), ToolStarted(ToolCall("c", "f", "{}")), TextDelta("a"), TextDelta("b"))
RESET = Told(TurnReset(2), EventId(2, 0))


def test_that_it_is_summarised_first_is_told_by_a_status() -> None:
    narrator = Narrator(Dialect.V1, KEY, "t")
    narrator.opening(TurnState.WORKING)
    (update,) = narrator.tell(Told(Summarizing()))
    status: Any = update["statusUpdate"]
    assert status["status"]["state"] == "TASK_STATE_WORKING"
    assert status["metadata"]["memory"] == {"status": "summarizing"}


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    ("before", "after", "told", "text", "again"),
    [
        ("ab", EventId(1, 3), [*FIRST, Told(ended("abc"))], "abc", ["c", ""]),
        ("abc", EventId(1, 4), [*FIRST, Told(ended("abc"))], "abc", [""]),
        ("abc", EventId(1, 9), [*FIRST, Told(ended("abcd"))], "abcd", ["abcd"]),
        ("ab", EventId(1, 3), [Told(ended("abc"))], "abc", ["abc"]),
        ("ab", EventId(1, 3), [Told(ended("", TurnState.FAILED))], "", [""]),
        ("ab", EventId(1, 3), [*SECOND, Told(ended("xy"))], "xy", ["", "x", "y", ""]),
        ("ab", EventId(1, 3), [*FIRST, RESET, *SECOND, Told(ended("xy"))], "xy", ["c", "", "x", "y", ""]),
        ("ab", EventId(1, 3), [RESET, *SECOND, Told(ended("xy"))], "xy", ["", "x", "y", ""]),
        ("", EventId(2, 0), [RESET, *SECOND, Told(ended("xy"))], "xy", ["x", "y", ""]),
        ("x", EventId(2, 2), [RESET, *SECOND, Told(ended("xy"))], "xy", ["y", ""]),
        ("hm", EventId(1, 2), [*CALLING, Told(ended("ab"))], "ab", ["a", "b", ""]),
        ("a", EventId(1, 3), [*CALLING, Told(ended("ab"))], "ab", ["b", ""]),
    ],
)
def test_a_stream_goes_on_behind_what_its_client_has(
    dialect: Dialect, before: str, after: EventId, told: list[Told], text: str, again: list[str]
) -> None:
    narrator = Narrator(dialect, KEY, "t", after=after)
    narrator.opening(TurnState.WORKING)
    found = _tell(narrator, told)
    assert collected(found, before) == text
    pieces = [event["artifactUpdate"] for event in found if "artifactUpdate" in event]
    assert [piece["artifact"]["parts"][0]["text"] for piece in pieces] == again
    assert kinds(found)[-1] == "statusUpdate"


def _tell(narrator: Narrator, told: Iterable[Told]) -> list[Any]:
    return [each for one in told for each in narrator.tell(one)]


async def test_each_event_has_an_id_from_which_a_stream_goes_on(site: Site) -> None:
    sent = said("stream 3 hello\nthink on\nsay !", "s", message_id="m")
    answer = await site.http.post("/v1/agents/a/message:stream", **sent)
    ids = [line[4:] for line in answer.text.splitlines() if line.startswith("id: ")]
    assert ids
    task = events(answer)[0]["task"]["id"]
    # The first, which tells that it works, shows nothing, and thinking is not shown.
    assert [place.removeprefix(f"{task}.") for place in ids] == ["1.2", "1.3", "1.4", "1.6"]
    whole = collected(events(answer))
    for place in ids:
        known = answer.text[: answer.text.index(f"id: {place}\n")]
        block = answer.text[len(known) :].split("\n\n", 1)[0]
        had = [json.loads(line[6:]) for line in f"{known}{block}".splitlines() if line.startswith("data: ")]
        headers = {"Last-Event-ID": place}
        for again in (
            await site.http.get(f"/v1/agents/a/tasks/{task}:subscribe", headers=headers),
            await site.http.post("/v1/agents/a/message:stream", **(sent | {"headers": headers})),
        ):
            rest = events(again)
            assert kinds(rest)[0] == "task"
            assert kinds(rest)[-1] == "statusUpdate"
            assert collected(rest, collected(had)) == whole
    assert len(site.model.requests) == 1


async def test_who_subscribes_to_a_running_task_gets_all_of_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribed = asyncio.Event()
    listen = site.runtime.listen

    async def watched(*names: str) -> Any:
        handle = await listen(*names)
        subscribed.set()
        return handle

    monkeypatch.setattr(site.runtime, "listen", watched)
    gate = site.model.gate("g")
    asked = await site.ask("stream 2 ab\nwait g\nsay c", "s", configuration={"blocking": False})
    await gate.reached.wait()
    listening = asyncio.create_task(site.http.get(f"/v1/agents/a/tasks/{asked['id']}:subscribe"))
    await subscribed.wait()
    gate.opened.set()
    found = events(await listening)
    assert collected(found) == "abc"
    assert found[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("place", ["x", "1", "1.-1", "-1.1", "task.1", "task.1.x"])
async def test_a_place_that_no_stream_gave_is_refused(site: Site, place: str) -> None:
    asked = await site.ask("say x", "s")
    answer = await site.http.get(
        f"/v1/agents/a/tasks/{asked['id']}:subscribe", headers={"Last-Event-ID": place}
    )
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "last-event-id")


async def test_who_subscribes_to_a_paused_task_is_told_its_question(start: StartSite) -> None:
    def which() -> str:
        """Ask."""
        raise InputRequiredError("which?")

    site = await start(tools=[FunctionTool(which)])
    asked = await site.ask("call which", "s")
    answer = await site.http.get(f"/v1/agents/a/tasks/{asked['id']}:subscribe")
    (told,) = events(answer)
    assert told["task"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert told["task"]["status"]["message"]["content"] == [{"text": "which?"}]
    again = await site.http.get(
        f"/v1/agents/a/tasks/{asked['id']}:subscribe", headers={"last-event-id": f"{asked['id']}.1.1"}
    )
    opening, *_, end = events(again)
    assert opening["task"]["status"]["state"] == "TASK_STATE_WORKING", "it is no end"
    assert end["statusUpdate"]["status"]["message"]["content"] == [{"text": "which?"}]


async def test_a_stream_goes_on_to_the_question_of_its_own_message_alone(start: StartSite) -> None:
    def which() -> str:
        """Ask."""
        raise InputRequiredError("which?")

    site = await start(tools=[FunctionTool(which)])
    sent = said("call which", "s", message_id="m1")
    first = events(await site.http.post("/v1/agents/a/message:stream", **sent))
    task = first[0]["task"]["id"]
    await site.ask("say painted", "s", message_id="m2", taskId=task)
    for place in ("1.1", "1.2"):
        headers = {"Last-Event-ID": f"{task}.{place}"}
        again = events(await site.http.post("/v1/agents/a/message:stream", **(sent | {"headers": headers})))
        assert "painted" not in json.dumps(again)
        status = (again[-1].get("task") or again[-1]["statusUpdate"])["status"]
        assert status["state"] == "TASK_STATE_INPUT_REQUIRED"
        assert status["message"]["content"] == [{"text": "which?"}]


@pytest.mark.parametrize("streams", [True, False])
async def test_who_answers_too_late_is_not_told_how_another_answer_was_answered(
    start: StartSite, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    def which() -> str:
        """Ask."""
        raise InputRequiredError("which?")

    async def send(text: str, **more: Any) -> Any:
        sent = said(text, "s", configuration={"blocking": False}, **more)
        return await site.http.post("/v1/agents/a/message:send", **sent)

    site = await start(tools=[FunctionTool(which)])
    asked = await site.ask("call which", "s")
    await send("wait g\nsay between")
    await site.model.gate("g").reached.wait()
    await send("wait h\nsay red", message_id="m1", taskId=asked["id"])
    await send("say blue", message_id="m2", taskId=asked["id"])
    site.model.gate("g").opened.set()
    await site.model.gate("h").reached.wait()
    store = site.runtime._stores["main"].store
    take, go_on = store.take, asyncio.Event()

    async def waits(*names: Any, **more: Any) -> Any:
        await go_on.wait()
        return await take(*names, **more)

    # The late answer still stands in the queue.
    monkeypatch.setattr(store, "take", waits)
    site.model.gate("h").opened.set()
    assert reply(await site.ask("wait h\nsay red", "s", message_id="m1", taskId=asked["id"])) == "red"
    accept, turn = site.runtime.send, site.runtime.turn
    joined, looked = asyncio.Event(), asyncio.Event()

    async def joins(*names: Any, **more: Any) -> Any:
        handle = await accept(*names, **more)
        joined.set()
        return handle

    async def looks(*names: str) -> Any:
        found = await turn(*names)
        if joined.is_set():
            looked.set()
        return found

    monkeypatch.setattr(site.runtime, "send", joins)
    monkeypatch.setattr(site.runtime, "turn", looks)
    configuration = {} if streams else {"configuration": {"blocking": False}}
    sent = said("say blue", "s", message_id="m2", taskId=asked["id"], **configuration)
    again = asyncio.create_task(
        site.http.post(f"/v1/agents/a/message:{'stream' if streams else 'send'}", **sent)
    )
    await looked.wait()
    go_on.set()
    answer = await again
    assert "red" not in answer.text
    assert "not_paused" in answer.text


@pytest.mark.parametrize("how", ["answered", "asks again", "canceled", "deleted"])
async def test_in_1_0_who_subscribes_to_a_paused_task_is_told_how_it_goes_on(
    start: StartSite, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def which(question: str) -> str:
        """Ask."""
        raise InputRequiredError(question)

    site = await start(tools=[FunctionTool(which, idempotent=True)])
    asked = await site.ask('call which {"question": "which?"}', "s")
    watching = asyncio.Event()
    go_on = site.runtime.until_gone_on

    async def watched(paused: Any) -> None:
        watching.set()
        await go_on(paused)

    monkeypatch.setattr(site.runtime, "until_gone_on", watched)
    place = f"/v1/agents/a/tasks/{asked['id']}"
    subscribing = asyncio.create_task(site.http.post(f"{place}:subscribe", headers={"A2A-Version": "1.0"}))
    await watching.wait()
    match how:
        case "answered":
            await site.ask("say this one", task_id=asked["id"])
        case "asks again":
            await site.ask('call which {"question": "sure?"}', task_id=asked["id"])
        case "canceled":
            await site.http.post(f"{place}:cancel")
        case _:
            await site.http.delete("/v1/agents/a/sessions/s")
    told = events(await subscribing)
    assert told[0]["task"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert told[0]["task"]["status"]["message"]["parts"] == [{"text": "which?"}]
    states = [event["statusUpdate"]["status"]["state"] for event in told if "statusUpdate" in event]
    match how:
        case "answered":
            assert states[-1] == "TASK_STATE_COMPLETED"
            assert collected(told) == "this one"
        case "asks again":
            assert states[-1] == "TASK_STATE_INPUT_REQUIRED"
            assert told[-1]["statusUpdate"]["status"]["message"]["parts"] == [{"text": "sure?"}]
        case _:
            assert states == ["TASK_STATE_CANCELED"]
            assert not any("artifactUpdate" in event for event in told), "a question is no reply"


async def test_who_asks_for_the_headers_of_a_stream_does_not_wait_for_its_end(site: Site) -> None:
    gate = site.model.gate("g")
    task = await site.ask("wait g", configuration={"blocking": False})
    await gate.reached.wait()
    head = await site.http.head(f"/v1/agents/a/tasks/{task['id']}:subscribe")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")


async def test_nobody_subscribes_to_what_is_not_there(site: Site) -> None:
    assert (await site.http.get("/v1/agents/a/tasks/none:subscribe")).status_code == 404


async def test_a_stream_of_a_session_that_was_deleted_meanwhile_tells_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = said("say x", "s", message_id="m")
    await site.http.post("/v1/agents/a/message:stream", **sent)
    listen = site.runtime.listen

    async def too_late(agent: str, user: str, task: str) -> Any:
        await site.runtime.delete_session(SessionKey(agent, user, "s"))
        return await listen(agent, user, task)

    monkeypatch.setattr(site.runtime, "listen", too_late)
    answer = await site.http.post(
        "/v1/agents/a/message:stream", **(sent | {"headers": {"Last-Event-ID": "1.1"}})
    )
    assert answer.status_code == 200
    assert kinds(events(answer))[-1] == "statusUpdate"


async def test_a_place_in_a_task_that_failed_means_nothing_in_the_next(site: Site) -> None:
    sent = said("stream 3 hello\nfail unreachable", "s", message_id="m")
    first = await site.http.post("/v1/agents/a/message:stream", **sent)
    place = [line[4:] for line in first.text.splitlines() if line.startswith("id: ")][-1]
    again = await site.http.post(
        "/v1/agents/a/message:stream", **(sent | {"headers": {"Last-Event-ID": place}})
    )
    pieces = [event["artifactUpdate"] for event in events(again) if "artifactUpdate" in event]
    texts = [piece["artifact"]["parts"][0]["text"] for piece in pieces]
    assert texts[0] == "", "what the other task said is discarded"
    assert not pieces[0].get("append")
    assert "".join(texts) == "hello"
    assert events(again)[0]["task"]["id"] != events(first)[0]["task"]["id"]
