"""The default agent at the server's own root, and A2A 1.0's tenants there."""

from typing import Any

import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import Message, Part, Role, SendMessageRequest

from hector.server.http.app import canonical_path
from tests.server.site import ALICE, Site, StartSite, bearer, events, reply, said, tokens

V1 = {"A2A-Version": "1.0"}
ONE = {"solo": ("Solo", "is alone")}
CARD = "/.well-known/agent-card.json"


def call(method: str, params: Any, **more: Any) -> dict[str, Any]:
    return {"json": {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}} | more


def new(text: str, **more: Any) -> dict[str, Any]:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}], "contextId": "s"}
    return {"message": message} | more


@pytest.fixture
async def solo(start: StartSite) -> Site:
    return await start(names=ONE)


@pytest.fixture
async def two(start: StartSite) -> Site:
    return await start(default_agent="b")


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_the_only_agent_answers_at_the_root(solo: Site, prefix: str) -> None:
    answer = await solo.http.post(f"{prefix}/message:send", **said("say hi", "s"))
    task = answer.json()["task"]
    assert reply(task) == "hi"
    assert (await solo.http.get(f"{prefix}/tasks/{task['id']}")).json()["id"] == task["id"]
    below = await solo.http.get(f"/v1/agents/solo/tasks/{task['id']}")
    assert below.json()["id"] == task["id"]
    assert (await solo.http.post(f"{prefix}/tasks/{task['id']}:cancel")).status_code == 400
    streamed = await solo.http.post(f"{prefix}/message:stream", **said("say hi", "s"))
    assert events(streamed)[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    again = await solo.http.get(f"{prefix}/tasks/{task['id']}:subscribe")
    assert events(again)[0]["task"]["id"] == task["id"]


@pytest.mark.parametrize("url", ["/", "/v1", "/v1/"])
async def test_json_rpc_is_taken_at_the_root(solo: Site, url: str) -> None:
    answer = await solo.http.post(url, **call("SendMessage", new("say hi")))
    assert (answer.json()["id"], reply(answer.json()["result"]["task"])) == (7, "hi")


async def test_the_configured_agent_is_the_default(two: Site) -> None:
    task = (await two.http.post("/message:send", **said("say hi"))).json()["task"]
    assert (await two.http.get(f"/agents/b/tasks/{task['id']}")).status_code == 200
    assert (await two.http.get(f"/agents/a/tasks/{task['id']}")).status_code == 404
    assert (await two.http.get(CARD)).json()["name"] == "Agent B"


@pytest.mark.parametrize("path", [CARD, "/.well-known/agent.json", "/v1/.well-known/agent.json"])
async def test_the_roots_card_is_the_default_agents_or_the_named_ones(two: Site, path: str) -> None:
    assert (await two.http.get(path)).json() == (await two.http.get(f"/agents/b{CARD}")).json()
    assert (await two.http.get(f"{path}?name=a")).json()["name"] == "Agent A"
    missing = await two.http.get(f"{path}?name=c")
    assert missing.status_code == 404
    assert missing.json()["error"]["message"] == "agent 'c' not found (known: a, b)"


async def test_an_agents_card_has_its_name_of_before_0_3_too(site: Site) -> None:
    old = await site.http.get("/v1/agents/a/.well-known/agent.json")
    assert old.json() == (await site.http.get(f"/v1/agents/a{CARD}")).json()


@pytest.mark.parametrize(
    "asked",
    [
        ("GET", CARD, {}),
        ("POST", "/message:send", said("say hi")),
        ("POST", "/v1/message:stream", said("say hi")),
        ("GET", "/tasks/t", {}),
        ("POST", "/", call("SendMessage", new("say hi"))),
    ],
    ids=lambda asked: asked[1],
)
async def test_who_names_no_agent_where_none_is_the_default_is_told_all(site: Site, asked: Any) -> None:
    method, path, more = asked
    answer = await site.http.request(method, path, **more)
    assert answer.status_code == 404
    assert "agents: a, b" in answer.json()["error"]["message"]
    assert answer.json().get("jsonrpc") == ("2.0" if path == "/" else None)


@pytest.mark.parametrize("prefix", ["/a", "/v1/a", "/a/v1"])
async def test_a_tenant_is_an_agent(two: Site, prefix: str) -> None:
    answer = await two.http.post(f"{prefix}/message:send", json=new("say hi"), headers=V1)
    task = answer.json()["task"]
    assert reply(task) == "hi"
    assert (await two.http.get(f"/agents/a/tasks/{task['id']}")).status_code == 200
    assert (await two.http.get(f"{prefix}/tasks/{task['id']}", headers=V1)).status_code == 200
    assert (await two.http.get(f"/b/tasks/{task['id']}", headers=V1)).status_code == 404


async def test_a_tenant_may_stand_in_the_parameters(two: Site) -> None:
    answer = await two.http.post("/", **call("SendMessage", new("say hi", tenant="a")))
    task = answer.json()["result"]["task"]
    assert (await two.http.get(f"/agents/a/tasks/{task['id']}")).status_code == 200
    found = await two.http.post("/", **call("GetTask", {"id": task["id"], "tenant": "a"}))
    assert found.json()["result"]["id"] == task["id"]
    assert (await two.http.get(f"/tasks/{task['id']}?tenant=a")).status_code == 200
    again = await two.http.post("/message:send", json=new("say hi", tenant="a"), headers=V1)
    assert again.json()["task"]["id"] == task["id"]
    at_its_own = await two.http.post("/agents/a", **call("SendMessage", new("say hi", tenant="b")))
    assert at_its_own.json()["result"]["task"]["id"] == task["id"]


async def test_a_tenant_may_stand_in_a_body_that_says_nothing_else(two: Site) -> None:
    at_once = {"returnImmediately": True}
    waiting = new("wait g\nsay hi", configuration=at_once)
    answer = await two.http.post("/agents/a/message:send", json=waiting, headers=V1)
    url = f"/tasks/{answer.json()['task']['id']}"
    of_the_default = await two.http.post(f"{url}:cancel", headers=V1)
    assert of_the_default.status_code == 404
    named = {"tenant": "a"}
    async with two.http.stream("POST", f"{url}:subscribe", json={"tenant": "b"}, headers=V1) as missing:
        assert missing.status_code == 404
    config = await two.http.post(
        f"{url}/pushNotificationConfigs", json={"id": "p", "url": "https://example.org/"} | named, headers=V1
    )
    assert config.status_code != 404, "of the default agent there is no such task"
    wrong = await two.http.post(f"{url}:cancel", content="no JSON", headers=V1)
    assert wrong.status_code == 400
    canceled = await two.http.post(f"{url}:cancel", json=named, headers=V1)
    assert canceled.status_code == 200, canceled.text
    ended = await two.http.post(f"{url}:subscribe", json=named, headers=V1)
    assert ended.status_code == 400, "it has ended, but it is there"


async def test_an_unknown_tenant_is_not_the_default_agent(two: Site) -> None:
    for answer in (
        await two.http.post("/c/message:send", json=new("say hi"), headers=V1),
        await two.http.post("/", **call("SendMessage", new("say hi", tenant="c"))),
        await two.http.post("/message:send", json=new("say hi", tenant="c"), headers=V1),
    ):
        assert answer.status_code == 404
        assert "agent 'c' not found (known: a, b)" in answer.text


async def test_the_root_is_guarded_as_all_is(start: StartSite) -> None:
    site = await start(auth=tokens(), names=ONE)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/message:send", said("say hi")),
        ("/solo/message:send", said("say hi")),
        ("/", call("SendMessage", new("say hi"))),
    ]
    for path, more in asked:
        more["headers"] = bearer(ALICE) | {"origin": "https://evil.example"}
        assert (await site.http.post(path, **more)).status_code == 403
        more["headers"] = bearer(ALICE) | {"host": "evil.example"}
        assert (await site.http.post(path, **more)).status_code == 403
        more["headers"] = {}
        answer = await site.http.post(path, **more)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="hector"')
        assert answer.json().get("jsonrpc") == ("2.0" if path == "/" else None)
        more["headers"] = bearer(ALICE)
        assert (await site.http.post(path, **more)).status_code == 200
    assert (await site.http.get(CARD)).status_code == 200


@pytest.mark.parametrize("path", ["/agents/a/tasks/agent-card.json", "/agents/a/sessions/agent-card.json"])
async def test_only_a_card_is_shown_without_a_token(start: StartSite, path: str) -> None:
    site = await start(auth=tokens())
    assert (await site.http.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/nothing", "/a", "/a/nothing", "/v1/a/sessions", "/sessions", "//tasks/x"])
async def test_what_is_not_a2as_is_not_served_at_the_root(two: Site, path: str) -> None:
    assert (await two.http.get(path)).status_code == 404


async def test_errors_at_the_root_have_the_shape_of_their_transport(solo: Site) -> None:
    broken = await solo.http.post("/", content="{", headers={"content-type": "application/json"})
    assert broken.json()["error"]["code"] == -32700
    rest = await solo.http.get("/tasks/none", headers=V1)
    assert (rest.status_code, rest.json()["error"]["code"]) == (404, 404)
    assert (await solo.http.get("/")).status_code == 405


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"*", "/"),
        (b"/", "/"),
        (b"/v1", "/"),
        (b"/v1?x=/a", "/"),
        (b"/v1/v1/message:send", "/agents/v1/message:send"),
        (b"/message%3Asend", "/message:send"),
        (b"/a/message%3Asend", "/agents/a/message:send"),
        (b"/%61gents/a%2Fb/v1/tasks/%2F", "/agents/a%2Fb/tasks/%2F"),
        (b"/tasks/tasks", "/tasks/tasks"),
        (b"/card/card", "/agents/card/card"),
        (b"/agents/a/v1", "/agents/a"),
        (b"/agents/a//", "/agents/a//"),
        (b"/agents/a/sessions/v1", "/agents/a/sessions/v1"),
        (b"/agents/a/.well-known/agent.json", "/agents/a/.well-known/agent-card.json"),
    ],
)
def test_each_url_has_one_spelling(raw: bytes, path: str) -> None:
    assert canonical_path({"raw_path": raw}) == path


@pytest.mark.parametrize("binding", ["HTTP+JSON", "JSONRPC"])
async def test_clients_name_a_tenant(two: Site, binding: str) -> None:
    card = await A2ACardResolver(two.http, "http://localhost:8091").get_agent_card()
    del card.supported_interfaces[:]
    card.supported_interfaces.add(
        url="http://localhost:8091", protocol_binding=binding, protocol_version="1.0", tenant="a"
    )
    config = ClientConfig(httpx_client=two.http, supported_protocol_bindings=[binding])
    client = ClientFactory(config).create(card)
    message = Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text="say hi")], context_id="s")
    async for event in client.send_message(SendMessageRequest(message=message)):
        assert event.task.context_id in {"s", ""}
    assert (await two.http.get("/agents/a/sessions/s")).json()["messageCount"] == 2
    assert (await two.http.get("/agents/b/sessions/s")).status_code == 404
