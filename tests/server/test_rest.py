"""Messages and tasks over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hector.domain.errors import InputRequiredError
from hector.domain.turns import TurnSettings
from hector.tools.function import FunctionTool
from tests.server.site import Site, StartSite, reply, said

V1 = {"A2A-Version": "1.0"}


async def test_the_quick_starts_request_is_answered(site: Site) -> None:
    body = (
        '{"message": {"context_id": "my-session", "role": 1,'
        ' "content": [{"text": "say your project ID is ALPHA-789"}]}}'
    )
    answer = await site.http.post(
        "/v1/agents/a/message:send", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    task = answer.json()["task"]
    assert task["contextId"] == "my-session"
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert reply(task) == "your project ID is ALPHA-789"
    assert "history" not in task


@pytest.mark.parametrize("path", ["/v1/agents/a", "/agents/a", "/v1/agents/a/v1", "/agents/a/v1"])
async def test_an_agent_is_found_under_each_of_its_urls(site: Site, path: str) -> None:
    answer = await site.http.post(f"{path}/message:send", **said("say hi", "s"))
    task = answer.json()["task"]
    found = await site.http.get(f"{path}/tasks/{task['id']}")
    assert found.json()["artifacts"] == task["artifacts"]


async def test_an_encoded_colon_is_a_colon(site: Site) -> None:
    answer = await site.http.post("/v1/agents/a/message%3Asend", **said("say hi"))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("message", "state", "part"),
    [
        ({"role": 1, "content": [{"text": "say x"}]}, "TASK_STATE_COMPLETED", {"text": "x"}),
        (
            {"role": "user", "parts": [{"kind": "text", "text": "say x"}]},
            "completed",
            {"kind": "text", "text": "x"},
        ),
        ({"role": "ROLE_USER", "parts": [{"text": "say x"}]}, "TASK_STATE_COMPLETED", {"text": "x"}),
    ],
)
async def test_each_dialect_is_answered_in_its_own(site: Site, message: Any, state: str, part: Any) -> None:
    answer = await site.http.post("/v1/agents/a/message:send", json={"message": message})
    task = answer.json()["task"]
    assert task["status"]["state"] == state
    assert task["artifacts"][0]["parts"] == [part]
    assert task.get("kind") == ("task" if "kind" in part else None)


async def test_the_callers_media_type_is_mirrored(site: Site) -> None:
    body = json.dumps(said("say x")["json"])
    for sent, expected in {
        "application/json; charset=utf-8": "application/json",
        "Application/JSON": "application/json",
        "application/a2a+json": "application/a2a+json",
    }.items():
        answer = await site.http.post(
            "/v1/agents/a/message:send", content=body, headers={"content-type": sent}
        )
        assert (answer.status_code, answer.headers["content-type"]) == (200, expected)
    nothing_said = await site.http.post("/v1/agents/a/message:send", content=body)
    assert nothing_said.status_code == 200


async def test_a_session_goes_on_where_it_ended(site: Site) -> None:
    await site.ask("say one", "s")
    await site.ask("say two", "s")
    assert [message.parts[0].text for message in site.model.requests[-1].messages] == [  # type: ignore[union-attr]
        "say one",
        "one",
        "say two",
    ]


async def test_agents_do_not_read_each_others_sessions(site: Site) -> None:
    await site.ask("say secret", "s")
    await site.http.post("/v1/agents/b/message:send", **said("say hi", "s"))
    assert len(site.model.requests[-1].messages) == 1


async def test_without_a_context_a_session_is_made(site: Site) -> None:
    first, second = await site.ask("say one"), await site.ask("say two")
    assert first["contextId"] != second["contextId"]
    assert (await site.ask("say three", first["contextId"]))["contextId"] == first["contextId"]


async def test_a_repeat_is_answered_with_the_first_answer(site: Site) -> None:
    first = await site.ask("say one", "s", message_id="m")
    again = await site.ask("say one", "s", message_id="m")
    assert (again["id"], again["artifacts"]) == (first["id"], first["artifacts"])
    assert len(site.model.requests) == 1


async def test_the_idempotency_key_is_a_message_id(site: Site) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await site.ask("say one", "s", headers=headers)
    assert (await site.ask("say one", "s", headers=headers))["id"] == first["id"]
    refused = await site.send("say two", "s", headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert refused.json()["error"]["field"] == "message.message_id"


async def test_a_failed_turn_is_no_http_error(site: Site) -> None:
    task = await site.ask("fail unreachable", "s")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert task["status"]["message"]["content"] == [{"text": "the script says unreachable"}]
    assert task["metadata"] == {"reason": "model_unreachable", "retryable": True}
    assert "artifacts" not in task


async def test_history_comes_when_it_is_asked_for(site: Site) -> None:
    task = await site.ask("say one", "s", configuration={"historyLength": 5})
    assert [message["content"] for message in task["history"]] == [[{"text": "say one"}], [{"text": "one"}]]
    for spelt in ("historyLength", "history_length"):
        newest = await site.http.get(f"/v1/agents/a/tasks/{task['id']}?{spelt}=1")
        assert [message["role"] for message in newest.json()["history"]] == ["ROLE_AGENT"]
        refused = await site.http.get(f"/v1/agents/a/tasks/{task['id']}?{spelt}=-1")
        assert refused.json()["error"]["field"] == spelt


@pytest.mark.parametrize("wish", [{"blocking": False}, {"returnImmediately": True}])
async def test_who_does_not_want_to_wait_gets_the_task_as_it_stands(site: Site, wish: Any) -> None:
    gate = site.model.gate("g")
    task = await site.ask("wait g\nsay done", "s", configuration=wish)
    assert task["status"]["state"] == "TASK_STATE_WORKING"
    queued = await site.ask("say next", "s", configuration=wish)
    assert queued["status"]["state"] == "TASK_STATE_SUBMITTED"
    gate.opened.set()
    await site.ask("say last", "s")
    found = (await site.http.get(f"/v1/agents/a/tasks/{task['id']}")).json()
    assert (found["status"]["state"], reply(found)) == ("TASK_STATE_COMPLETED", "done")


async def test_a_task_is_told_in_the_version_that_is_named(site: Site) -> None:
    gate = site.model.gate("g")
    task = await site.ask("wait g", "s", configuration={"blocking": False})
    await gate.reached.wait()
    await site.http.post(f"/v1/agents/a/tasks/{task['id']}:cancel")
    path = f"/v1/agents/a/tasks/{task['id']}"
    assert (await site.http.get(path)).json()["status"]["state"] == "TASK_STATE_CANCELLED"
    assert (await site.http.get(path, headers=V1)).json()["status"]["state"] == "TASK_STATE_CANCELED"
    by_query = await site.http.get(path, params={"A2A-Version": "1.0"})
    assert by_query.json()["status"]["state"] == "TASK_STATE_CANCELED"


async def test_a_running_task_is_canceled(site: Site) -> None:
    gate = site.model.gate("g")
    waiting = asyncio.create_task(site.ask("wait g\nsay done", "s"))
    await gate.reached.wait()
    running = (await site.http.get("/v1/agents/a/sessions/s")).json()["runningTaskId"]
    canceled = await site.http.post(f"/v1/agents/a/tasks/{running}:cancel", json={})
    assert canceled.json()["status"]["state"] == "TASK_STATE_CANCELLED"
    assert (await waiting)["status"]["state"] == "TASK_STATE_CANCELLED"
    again = await site.http.post(f"/v1/agents/a/tasks/{running}:cancel")
    assert again.status_code == 200


async def test_what_has_ended_cannot_be_canceled(site: Site) -> None:
    task = await site.ask("say x", "s")
    refused = await site.http.post(f"/v1/agents/a/tasks/{task['id']}:cancel")
    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["reason"] == "TASK_NOT_CANCELABLE"


async def test_a_paused_task_is_resumed_by_its_id(start: StartSite) -> None:
    answers = iter(["", "paris"])

    def ask() -> str:
        """Asks."""
        if answer := next(answers):
            return answer
        raise InputRequiredError("which city?")

    site = await start(tools=[FunctionTool(ask)])
    paused = await site.ask("call ask", "s")
    assert paused["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert paused["status"]["message"]["content"] == [{"text": "which city?"}]
    assert "artifacts" not in paused
    resumed = await site.ask("say paris", taskId=paused["id"])
    assert (resumed["id"], resumed["contextId"]) == (paused["id"], "s")
    assert resumed["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_an_ended_task_takes_no_message(site: Site) -> None:
    task = await site.ask("say x", "s")
    refused = await site.send("say y", task_id=task["id"])
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["field"]) == ("not_paused", "message.task_id")
    assert error["details"][0]["reason"] == "UNSUPPORTED_OPERATION"


@pytest.mark.parametrize("path", ["tasks/none", "tasks/none:cancel"])
async def test_an_unknown_task_is_not_found(site: Site, path: str) -> None:
    method = "POST" if path.endswith("cancel") else "GET"
    answer = await site.http.request(method, f"/v1/agents/a/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["details"][0]["reason"] == "TASK_NOT_FOUND"


@pytest.mark.parametrize(
    ("message", "field", "text"),
    [
        ({"content": []}, "message.content", "is empty"),
        ({"content": [{"text": "a\0b"}]}, "message.content[0].text", "NUL"),
        ({"parts": [{"text": "a"}, {"text": "a\ud800b"}]}, "message.parts[1].text", "surrogate"),
        ({"content": [{"text": "x"}], "context_id": "s" * 192}, "message.context_id", "at most 191"),
        ({"content": [{"text": "x"}], "context_id": "\0"}, "message.context_id", "NUL"),
        ({"content": [{"text": "x"}], "message_id": "m" * 192}, "message.message_id", "at most 191"),
        ({"content": [{"data": {"data": {"a": "\0"}}}]}, "message.content[0].data", "NUL"),
    ],
)
async def test_what_the_domain_refuses_is_told_in_the_callers_words(
    site: Site, message: Any, field: str, text: str
) -> None:
    answer = await site.http.post(
        "/v1/agents/a/message:send",
        content=json.dumps({"message": message}),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["field"] == field
    assert error["message"].startswith(f"{field}: ")
    assert text in error["message"]
    assert error["details"][1]["fieldViolations"][0]["field"] == field
    assert (await site.http.get("/v1/agents/a/sessions")).json()["sessions"] == []


async def test_a_fault_is_found_where_the_caller_wrote_it(site: Site) -> None:
    body = {"request": {"role": 1, "content": [{"text": "a\0b"}]}}
    answer = await site.http.post("/v1/agents/a/message:send", json=body)
    assert answer.json()["error"]["field"] == "request.content[0].text"


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_other_media_types_are_refused(site: Site, media_type: str) -> None:
    answer = await site.http.post(
        "/v1/agents/a/message:send", content=b"{}", headers={"content-type": media_type}
    )
    assert answer.status_code == 415
    assert media_type in answer.json()["error"]["message"]


async def test_a_body_is_counted_while_it_is_read(start: StartSite) -> None:
    site = await start(body_limit=1000)
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 400
            yield b"x" * 400

    json_type = {"content-type": "application/json"}
    declared = await site.send("x" * 2000)
    counted = await site.http.post("/v1/agents/a/message:send", content=endless(), headers=json_type)
    lying = await site.http.post(
        "/v1/agents/a/message:send", content=endless(), headers=json_type | {"content-length": "5"}
    )
    for answer in (declared, counted, lying):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "too_large"
        assert "1000 bytes" in answer.json()["error"]["message"]
    assert read <= 3200


async def test_an_agent_that_is_not_there_is_named_before_the_body_is_read(site: Site) -> None:
    answer = await site.http.post("/v1/agents/none/message:send", content=b"no json")
    assert answer.status_code == 404
    assert "known: a, b" in answer.json()["error"]["message"]


async def test_an_unknown_version_is_refused(site: Site) -> None:
    answer = await site.send("say x", headers={"A2A-Version": "9.9"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "FAILED_PRECONDITION")
    assert error["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"


async def test_errors_of_1_0_have_its_numeric_code(site: Site) -> None:
    answer = await site.http.get("/v1/agents/a/tasks/none", headers=V1)
    assert answer.json()["error"]["code"] == 404
    assert (await site.http.get("/v1/agents/a/tasks/none")).json()["error"]["code"] == "not_found"


async def test_a_busy_agent_that_does_not_queue_says_so(start: StartSite) -> None:
    site = await start(settings=TurnSettings(on_busy="reject"))
    gate = site.model.gate("g")
    await site.ask("wait g", "s", configuration={"blocking": False})
    refused = await site.send("say x", "s")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "busy")
    gate.opened.set()


async def test_a_full_queue_asks_for_patience(start: StartSite) -> None:
    site = await start(settings=TurnSettings(max_waiting=1))
    gate = site.model.gate("g")
    for text in ("wait g", "say next"):
        await site.ask(text, "s", configuration={"blocking": False})
    refused = await site.send("say x", "s")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    gate.opened.set()


async def test_a_server_that_stops_takes_nothing_new(site: Site) -> None:
    site.app._entrance.stop()
    refused = await site.send("say x")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert "retry-after" in refused.headers
    assert (await site.http.get("/health")).status_code == 200
    assert (await site.http.get("/ready")).status_code == 503


async def test_who_waits_when_the_server_stops_is_told_that_the_message_is_kept(site: Site) -> None:
    gate = site.model.gate("g")
    await site.ask("wait g", "s", configuration={"blocking": False})
    await gate.reached.wait()
    waiting = asyncio.create_task(site.send("say x", "s", message_id="m"))
    await site.until_waiting("s")
    await site.runtime.close()
    answer = await waiting
    assert answer.status_code == 503
    assert "stored" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nothing", 404, None),
        ("GET", "/v1/agents/a", 405, "POST"),
        ("POST", "/v1/agents/a/message:sent", 404, None),
        ("GET", "/v1/agents/a/message:send", 405, "POST"),
        ("PUT", "/v1/agents/a/sessions/s", 405, "DELETE, GET, HEAD"),
        ("DELETE", "/v1/agents", 405, "GET, HEAD"),
        ("GET", "/v1/agents/%ff/sessions/s", 400, None),
    ],
)
async def test_what_is_not_served_is_an_error_in_json(
    site: Site, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = await site.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert answer.headers.get("allow") == allow


async def test_a_defect_is_logged_without_what_was_said(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: Any, **more: Any) -> None:
        raise ValueError(str(args))

    monkeypatch.setattr(site.runtime, "send", broken)
    answer = await site.send("say secret", "secret-session")
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "internal error"
    assert "ValueError" in caplog.text
    assert "in broken" in caplog.text
    assert "secret" not in caplog.text


async def test_probes_tell_why_the_server_is_not_ready(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await site.http.get("/health")).json() == {"status": "up"}
    assert (await site.http.get("/ready")).json() == {"status": "ready"}

    async def not_ready() -> list[str]:
        return ["session store 'main': gone"]

    monkeypatch.setattr(site.runtime, "not_ready", not_ready)
    answer = await site.http.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["problems"] == ["session store 'main': gone"]


async def test_a_task_tells_its_question_while_an_answer_waits_for_its_turn(start: StartSite) -> None:
    def which() -> str:
        """Ask."""
        raise InputRequiredError("which?")

    site = await start(tools=[FunctionTool(which)])
    asked = await site.ask("call which", "s", message_id="m1")
    gate = site.model.gate("g")
    running = asyncio.create_task(site.ask("wait g", "s"))
    await gate.reached.wait()
    waiting = asyncio.create_task(site.ask("this", "s", task_id=asked["id"]))
    await site.until_waiting("s")
    for task in (
        (await site.http.get(f"/v1/agents/a/tasks/{asked['id']}")).json(),
        await site.ask("call which", "s", message_id="m1"),
    ):
        assert task["status"]["message"]["content"] == [{"text": "which?"}]
    gate.opened.set()
    await running
    await waiting
