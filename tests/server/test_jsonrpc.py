"""A2A over JSON-RPC: envelopes, the methods of both versions, streams, errors."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from hector.domain.turns import TurnSettings
from tests.server.site import ALICE, Site, StartSite, bearer, events, reply, tokens

URL = "/v1/agents/a"
NEW = {"send": "SendMessage", "stream": "SendStreamingMessage", "get": "GetTask", "cancel": "CancelTask"} | {
    "subscribe": "SubscribeToTask"
}
OLD = {"send": "message/send", "stream": "message/stream", "get": "tasks/get", "cancel": "tasks/cancel"} | {
    "subscribe": "tasks/resubscribe"
}


def new(text: str, **more: Any) -> dict[str, Any]:
    """A message of A2A 1.0."""
    said = {"messageId": "m", "contextId": "s", "role": "ROLE_USER", "parts": [{"text": text}]}
    return {"message": said | more}


def old(text: str, **more: Any) -> dict[str, Any]:
    """A message of A2A 0.3."""
    part = {"kind": "text", "text": text}
    return {"message": {"messageId": "m", "contextId": "s", "role": "user", "parts": [part]} | more}


async def rpc(
    site: Site,
    method: str,
    params: Any = None,
    *,
    url: str = URL,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> httpx.Response:
    envelope = {"jsonrpc": "2.0", "id": 1, "method": method} | more
    if params is not None:
        envelope["params"] = params
    return await site.http.post(url, json=envelope, headers=headers)


async def result(site: Site, method: str, params: Any = None, **more: Any) -> Any:
    answer = await rpc(site, method, params, **more)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["jsonrpc"], told["id"]) == ("2.0", 1)
    return told["result"]


async def failure(site: Site, method: str, params: Any = None, **more: Any) -> Any:
    told = (await rpc(site, method, params, **more)).json()
    assert (told["jsonrpc"], told["id"]) == ("2.0", 1)
    return told["error"]


@pytest.mark.parametrize(
    "url", ["/v1/agents/a", "/v1/agents/a/", "/agents/a", "/agents/a/", "/v1/agents/a/v1", "/agents/a/v1/"]
)
async def test_each_spelling_of_an_agents_url_takes_calls(site: Site, url: str) -> None:
    assert reply((await result(site, "SendMessage", new("say hi"), url=url))["task"]) == "hi"


async def test_a_message_of_1_0_is_answered_in_1_0(site: Site) -> None:
    task = (await result(site, "SendMessage", new("say hi")))["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert task["contextId"] == "s"
    assert "kind" not in task


async def test_a_message_of_0_3_is_answered_in_0_3(site: Site) -> None:
    task = await result(site, "message/send", old("say hi"))
    assert (task["kind"], task["status"]["state"], reply(task)) == ("task", "completed", "hi")


async def test_both_versions_see_one_task(site: Site) -> None:
    task = await result(site, "message/send", old("say hi"))
    assert (await result(site, "GetTask", {"id": task["id"]}))["id"] == task["id"]
    again = (await result(site, "SendMessage", new("say hi")))["task"]
    assert again["id"] == task["id"]
    with_history = await result(site, "tasks/get", {"id": task["id"], "historyLength": 1})
    assert [message["role"] for message in with_history["history"]] == ["agent"]


async def test_a_task_is_canceled(site: Site) -> None:
    gate = site.model.gate("g")
    at_once = {"configuration": {"returnImmediately": True}}
    task = (await result(site, "SendMessage", new("wait g") | at_once))["task"]
    await gate.reached.wait()
    assert (await result(site, "CancelTask", {"id": task["id"]}))["status"]["state"] == "TASK_STATE_CANCELED"
    assert (await result(site, "tasks/cancel", {"id": task["id"]}))["status"]["state"] == "canceled"


async def test_a_stream_of_1_0(site: Site) -> None:
    told = events(await rpc(site, "SendStreamingMessage", new("stream 2 hello")))
    assert {(each["jsonrpc"], each["id"]) for each in told} == {("2.0", 1)}
    kinds = [next(iter(each["result"])) for each in told]
    assert kinds == ["task", "artifactUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate"]
    assert told[-1]["result"]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_stream_of_0_3(site: Site) -> None:
    told = [each["result"] for each in events(await rpc(site, "message/stream", old("stream 2 hello")))]
    assert [each["kind"] for each in told] == ["task", *["artifact-update"] * 3, "status-update"]
    assert told[-1]["final"]


@pytest.mark.parametrize(("names", "said"), [(NEW, new), (OLD, old)])
async def test_a_running_task_is_subscribed_to(
    site: Site, monkeypatch: pytest.MonkeyPatch, names: Mapping[str, str], said: Any
) -> None:
    subscribed = asyncio.Event()
    listen = site.runtime.listen

    async def watched(*asked: str) -> Any:
        handle = await listen(*asked)
        subscribed.set()
        return handle

    monkeypatch.setattr(site.runtime, "listen", watched)
    gate = site.model.gate("g")
    first = asyncio.create_task(rpc(site, names["stream"], said("wait g\nsay hi")))
    await gate.reached.wait()
    listed = (await site.http.get("/v1/agents/a/sessions/s")).json()
    second = asyncio.create_task(rpc(site, names["subscribe"], {"id": listed["runningTaskId"]}))
    await subscribed.wait()
    gate.opened.set()
    ends = [json.dumps(events(await each)[-1]["result"]) for each in (first, second)]
    # Each stream tells the time when it was told.
    assert len({re.sub(r'"timestamp": "[^"]*"', "", end) for end in ends}) == 1
    assert "completed" in ends[0].lower()


async def test_a_task_that_has_ended_is_not_subscribed_to_in_1_0(site: Site) -> None:
    task = (await result(site, "SendMessage", new("say hi")))["task"]
    error = await failure(site, "SubscribeToTask", {"id": task["id"]})
    assert error["code"] == -32004
    assert error["data"][0]["reason"] == "UNSUPPORTED_OPERATION"
    told = events(await rpc(site, "tasks/resubscribe", {"id": task["id"]}))
    assert reply(told[0]["result"]) == "hi"


async def test_a_stream_goes_on_after_the_last_event(site: Site) -> None:
    await rpc(site, "SendStreamingMessage", new("stream 2 hello"))
    again = await rpc(site, "SendStreamingMessage", new("stream 2 hello"), headers={"last-event-id": "1.2"})
    kinds = [next(iter(each["result"])) for each in events(again)]
    assert kinds == ["task", "artifactUpdate", "statusUpdate"]


@pytest.mark.parametrize(
    ("body", "code", "call_id"),
    [
        (b"{", -32700, None),
        (b"\xff", -32700, None),
        (b'{"a": NaN}', -32700, None),
        (b"[]", -32600, None),
        (b"3", -32600, None),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "GetTask"}', -32600, None),
        (b'{"jsonrpc": "2.0", "id": true, "method": "GetTask"}', -32600, None),
        (b'{"jsonrpc": "2.0", "id": 1.5, "method": "GetTask"}', -32600, None),
        (b'{"jsonrpc": "1.0", "id": "x", "method": "GetTask"}', -32600, "x"),
        (b'{"id": "x", "method": "GetTask"}', -32600, "x"),
        (b'{"jsonrpc": "2.0", "id": "x"}', -32600, "x"),
        (b'{"jsonrpc": "2.0", "id": "x", "method": 3}', -32600, "x"),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "nothing"}', -32601, "x"),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "GetTask", "params": []}', -32602, "x"),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "GetTask"}', -32602, "x"),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "GetTask", "params": {"id": 3}}', -32602, "x"),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "SendMessage", "params": {}}', -32602, "x"),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "GetTask", "params": {"id": "none"}}', -32001, "x"),
    ],
)
async def test_what_is_wrong_is_told_with_the_id_of_the_call(
    site: Site, body: bytes, code: int, call_id: str | None
) -> None:
    answer = await site.http.post(URL, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    told = answer.json()
    assert (told["jsonrpc"], told["id"], told["error"]["code"]) == ("2.0", call_id, code)
    assert told["error"]["message"]


async def test_a_message_without_an_id_is_refused(site: Site) -> None:
    for method, said in (("SendMessage", new), ("message/send", old)):
        error = await failure(site, method, said("say hi", messageId=""))
        assert error["code"] == -32602
        assert error["data"][1]["fieldViolations"][0]["field"] == "message.messageId"


async def test_a_method_of_another_version_than_is_named_is_none(site: Site) -> None:
    error = await failure(site, "message/send", old("say hi"), headers={"a2a-version": "1.0"})
    assert (error["code"], "is not of A2A 1.0" in error["message"]) == (-32601, True)
    error = await failure(site, "SendMessage", new("say hi"), headers={"a2a-version": "0.3"})
    assert (error["code"], "is not of A2A 0.3" in error["message"]) == (-32601, True)
    error = await failure(site, "SendMessage", new("say hi"), headers={"a2a-version": "0.9"})
    assert error["code"] == -32009
    assert reply((await result(site, "SendMessage", new("say hi"), url=f"{URL}?A2A-Version=1.0"))["task"])


async def test_a_busy_session_names_the_task_that_runs(start: StartSite) -> None:
    site = await start(settings=TurnSettings(on_busy="reject"))
    gate = site.model.gate("g")
    running = asyncio.create_task(rpc(site, "SendMessage", new("wait g")))
    await gate.reached.wait()
    answer = await rpc(site, "SendMessage", new("say hi", messageId="n"))
    assert answer.status_code == 200
    error = answer.json()["error"]
    gate.opened.set()
    task = (await running).json()["result"]["task"]
    assert (error["code"], error["data"][0]["reason"]) == (-32000, "BUSY")
    assert error["data"][0]["metadata"] == {"taskId": task["id"]}


async def test_an_outage_is_for_proxies_to_see_as_well(site: Site) -> None:
    site.app._entrance.stop()
    answer = await rpc(site, "SendMessage", new("say hi"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["data"][1]["retryDelay"] == "1s"


async def test_who_calls_is_asked_before_what(start: StartSite) -> None:
    site = await start(auth=tokens())
    answer = await rpc(site, "SendMessage", new("say hi"))
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == -32000
    assert answer.headers["www-authenticate"]
    assert await result(site, "SendMessage", new("say hi"), headers=bearer(ALICE))


async def test_an_agent_that_is_not_there_is_404(site: Site) -> None:
    answer = await rpc(site, "SendMessage", new("say hi"), url="/v1/agents/none")
    assert (answer.status_code, answer.json()["jsonrpc"]) == (404, "2.0")


async def test_a_body_beyond_the_limit_is_413(start: StartSite) -> None:
    site = await start(body_limit=2000)
    answer = await rpc(site, "SendMessage", new("x" * 3000))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, -32600)


async def test_a_defect_is_an_internal_error_that_says_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = "secret"

    async def broken(*args: Any, **more: Any) -> None:
        raise ValueError(said)

    monkeypatch.setattr(site.runtime, "send", broken)
    answer = await rpc(site, "SendMessage", new("say hi"))
    assert (answer.status_code, answer.json()["id"]) == (500, 1)
    assert answer.json()["error"]["code"] == -32603
    assert "secret" not in answer.text
    assert "secret" not in caplog.text


async def test_a_stream_that_breaks_ends_with_an_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = site.model.gate("g")
    streaming = asyncio.create_task(rpc(site, "SendStreamingMessage", new("wait g")))
    await gate.reached.wait()
    await site.runtime.close()
    last = (await streaming).text.strip().split("\n\n")[-1]
    told = json.loads(last.removeprefix("data: "))
    assert (told["id"], told["result"]["statusUpdate"]["status"]["state"]) == (1, "TASK_STATE_FAILED")


EVENTS = {"Accept": "text/event-stream"}


@pytest.mark.parametrize("operation", ["stream", "subscribe"])
async def test_clients_of_0_3_that_want_events_are_refused_in_one(site: Site, operation: str) -> None:
    params = {"id": "none"} if operation == "subscribe" else {"message": {"role": "user"}}
    refused = await rpc(site, OLD[operation], params, headers=EVENTS)
    assert (refused.status_code, refused.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert refused.text.startswith("data: ")
    error = json.loads(refused.text.removeprefix("data: "))["error"]
    assert error["code"] == (-32001 if operation == "subscribe" else -32602)
    assert error == await failure(site, OLD[operation], params), "who takes no events is told the same"
    newer = await rpc(site, NEW[operation], params, headers=EVENTS)
    assert newer.headers["content-type"] == "application/json"


async def test_what_proxies_act_upon_is_no_event(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.runtime, "_message_limit", 10)
    refused = await rpc(site, "message/stream", old("say much more"), headers=EVENTS)
    assert (refused.status_code, refused.headers["content-type"]) == (413, "application/json")
