"""Push notification configurations over HTTP and JSON-RPC, in each dialect."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as proto_03
from a2a.compat.v0_3 import types as types_03
from a2a.types import a2a_pb2 as proto_10
from google.protobuf.json_format import MessageToDict, ParseDict

from hector.domain.push import MAX_CONFIGS
from hector.runtime.push.deliveries import PushSettings
from hector.runtime.push.targets import Targets
from tests.server.site import ALICE, BOB, Site, StartSite, bearer, tokens

V1, V03 = {"a2a-version": "1.0"}, {"a2a-version": "0.3"}
URL = "https://example.com/hook?a=b"
CONFIG: dict[str, Any] = {
    "id": "c",
    "url": URL,
    "token": "tok",
    "authentication": {"scheme": "Bearer", "credentials": "secret"},
}
CONFIG_03 = CONFIG | {"authentication": {"schemes": ["Bearer", "Basic"], "credentials": "secret"}}


async def somewhere(host: str, port: int) -> Sequence[str]:
    """example.com is on the internet, all other names are not known yet, but for one."""
    if host == "inside.example.com":
        return ["10.0.0.1"]
    if host == "silent.example.com":
        await asyncio.Event().wait()
    if host != "example.com":
        raise OSError("no such name")
    return ["1.1.1.1"]


@pytest.fixture
async def site(start: StartSite) -> Site:
    return await start(push=PushSettings(Targets(resolve=somewhere)))


async def a_task(site: Site, **more: Any) -> str:
    task = await site.ask("say hi", **more)
    return str(task["id"])


def place(task_id: str, config_id: str = "") -> str:
    return f"/v1/agents/a/tasks/{task_id}/pushNotificationConfigs" + (f"/{config_id}" if config_id else "")


async def make(
    site: Site, task_id: str, config: Any = CONFIG, headers: dict[str, str] = V1
) -> httpx.Response:
    return await site.http.post(place(task_id), json=config, headers=headers)


async def call(site: Site, method: str, **params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return (await site.http.post("/v1/agents/a", json=body)).json()


async def test_a_configuration_of_1_0(site: Site) -> None:
    task_id = await a_task(site)
    made = await make(site, task_id)
    assert (made.status_code, made.json()) == (200, CONFIG | {"taskId": task_id})
    ParseDict(made.json(), proto_10.TaskPushNotificationConfig())
    assert (await site.http.get(place(task_id, "c"), headers=V1)).json() == made.json()
    listed = await site.http.get(place(task_id), headers=V1)
    assert listed.json() == {"configs": [made.json()]}
    for _ in range(2):
        deleted = await site.http.delete(place(task_id, "c"), headers=V1)
        assert (deleted.status_code, deleted.json()) == (200, {})
    assert (await site.http.get(place(task_id), headers=V1)).json() == {"configs": []}
    gone = await site.http.get(place(task_id, "c"), headers=V1)
    assert gone.status_code == 404
    assert gone.json()["error"]["details"][0]["reason"] == "TASK_NOT_FOUND"


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_configuration_of_0_3_over_http(site: Site, depth: int) -> None:
    task_id = await a_task(site)
    body: dict[str, Any] = {"pushNotificationConfig": CONFIG_03}
    if depth == 2:  # as a2a-sdk's client sends it
        body = {"parent": f"tasks/{task_id}", "configId": "c", "config": body}
    made = await make(site, task_id, body, V03)
    named = {"name": f"tasks/{task_id}/pushNotificationConfigs/c"}
    one_scheme = CONFIG_03
    assert (made.status_code, made.json()) == (200, named | {"pushNotificationConfig": one_scheme})
    ours = ParseDict(made.json(), proto_03.TaskPushNotificationConfig())
    assert MessageToDict(ours) == made.json()
    assert (await site.http.get(place(task_id, "c"), headers=V03)).json() == made.json()
    assert (await site.http.get(place(task_id), headers=V03)).json() == {"configs": [made.json()]}


@pytest.mark.parametrize("nothing", [{}, {"schemes": []}, {"schemes": [], "credentials": ""}])
async def test_an_authentication_that_is_empty_is_none_in_0_3_alone(site: Site, nothing: Any) -> None:
    task_id = await a_task(site)
    config = {"id": "c", "url": URL, "authentication": nothing}
    made = await make(site, task_id, {"pushNotificationConfig": config}, V03)
    assert made.json()["pushNotificationConfig"] == {"id": "c", "url": URL}
    refused = await make(site, task_id, config, V1)
    assert (refused.status_code, "like Bearer" in refused.text) == (400, True)


async def test_a_configuration_of_0_3_by_json_rpc(site: Site) -> None:
    task_id = await a_task(site)
    bare = {"url": URL}
    made = await call(site, "tasks/pushNotificationConfig/set", taskId=task_id, pushNotificationConfig=bare)
    expected = {"taskId": task_id, "pushNotificationConfig": {"id": task_id, "url": URL}}
    assert made["result"] == expected
    types_03.TaskPushNotificationConfig.model_validate(made["result"])
    again = await call(
        site, "tasks/pushNotificationConfig/set", taskId=task_id, pushNotificationConfig=bare | {"token": "t"}
    )
    other = await call(
        site, "tasks/pushNotificationConfig/set", taskId=task_id, pushNotificationConfig=CONFIG_03
    )
    both = [again["result"], other["result"]]
    assert (await call(site, "tasks/pushNotificationConfig/list", id=task_id))["result"] == both
    assert (await call(site, "tasks/pushNotificationConfig/get", id=task_id))["result"] == both[0]
    named = {"id": task_id, "pushNotificationConfigId": "c"}
    assert (await call(site, "tasks/pushNotificationConfig/get", **named))["result"] == both[1]
    for _ in range(2):
        deleted = await call(site, "tasks/pushNotificationConfig/delete", **named)
        assert deleted == {"jsonrpc": "2.0", "id": 1, "result": None}
    missing = await call(site, "tasks/pushNotificationConfig/get", **named)
    assert missing["error"]["code"] == -32001


async def test_a_configuration_of_1_0_by_json_rpc(site: Site) -> None:
    task_id = await a_task(site)
    made = await call(site, "CreateTaskPushNotificationConfig", taskId=task_id, **CONFIG)
    assert made["result"] == CONFIG | {"taskId": task_id}
    named = {"taskId": task_id, "id": "c"}
    assert (await call(site, "GetTaskPushNotificationConfig", **named))["result"] == made["result"]
    listed = await call(site, "ListTaskPushNotificationConfigs", taskId=task_id)
    assert listed["result"] == {"configs": [made["result"]]}
    assert (await call(site, "DeleteTaskPushNotificationConfig", **named))["result"] == {}
    missing = await call(site, "GetTaskPushNotificationConfig", **named)
    assert missing["error"]["code"] == -32001
    assert (await call(site, "GetTaskPushNotificationConfig", taskId=task_id))["error"]["code"] == -32602


async def test_without_a_version_the_body_tells_the_dialect(site: Site) -> None:
    task_id = await a_task(site)
    assert "taskId" in (await make(site, task_id, CONFIG, {})).json()
    assert "name" in (await make(site, task_id, {"push_notification_config": CONFIG}, {})).json()


async def test_in_1_0_each_without_an_id_gets_one(site: Site) -> None:
    task_id = await a_task(site)
    ids = {(await make(site, task_id, {"url": URL})).json()["id"] for _ in range(2)}
    assert len(ids) == 2
    assert (await site.http.get(place(task_id), headers=V1)).json()["configs"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("pushNotificationConfig", {"id": "c", "url": URL}),
        ("push_notification", {"id": "c", "url": URL}),
        ("taskPushNotificationConfig", {"id": "c", "url": URL}),
    ],
)
async def test_a_message_brings_one(site: Site, name: str, config: Any) -> None:
    task_id = await a_task(site, configuration={name: config})
    found = (await site.http.get(place(task_id, "c"), headers=V1)).json()
    assert found == config | {"taskId": task_id}


@pytest.mark.parametrize(
    ("config", "field", "why"),
    [
        ({}, "url", "is missing"),
        ({"url": ""}, "url", "is missing"),
        ({"url": 3}, "url", "wanted a string"),
        ({"url": "http://example.com/"}, "url", "not encrypted"),
        ({"url": "https://127.0.0.1/"}, "url", "not public"),
        ({"url": "https://inside.example.com/"}, "url", "not public"),
        ({"url": URL, "id": "x" * 192}, "id", "at most 191"),
        ({"url": URL, "id": "\0"}, "id", "NUL"),
        ({"url": URL, "token": "a\r\nb"}, "token", "HTTP header"),
        ({"url": URL, "token": "\u00e9"}, "token", "HTTP header"),
        ({"url": URL, "token": "x" * 4097}, "token", "1 to 4096"),
        ({"url": URL, "authentication": []}, "authentication", "wanted an object"),
        ({"url": URL, "authentication": {"credentials": "x"}}, "authentication.scheme", "like Bearer"),
        ({"url": URL, "authentication": {"scheme": "a b"}}, "authentication.scheme", "like Bearer"),
        ({"url": URL, "authentication": {"schemes": ["a", 3]}}, "authentication.schemes", "like Bearer"),
        ({"url": URL, "authentication": {"schemes": ["a\n"]}}, "authentication.schemes", "like Bearer"),
        (
            {"url": URL, "authentication": {"scheme": "Bearer", "credentials": "a\nb"}},
            "authentication.credentials",
            "HTTP header",
        ),
    ],
)
async def test_what_cannot_be_a_configuration_is_refused(
    site: Site, config: Any, field: str, why: str
) -> None:
    task_id = await a_task(site)
    refused = await make(site, task_id, config)
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, field)
    assert why in refused.json()["error"]["message"]
    place = "configuration.taskPushNotificationConfig"
    if config:
        refused = await site.send("say hi", "s", configuration={"taskPushNotificationConfig": config})
        assert (refused.status_code, refused.json()["error"]["field"]) == (400, f"{place}.{field}")
        assert (await site.http.get("/v1/agents/a/sessions/s")).status_code == 404, "nothing was begun"
    assert (await site.http.get(f"/v1/agents/a/tasks/{task_id}/pushNotificationConfigs")).json() == {
        "configs": []
    }


@pytest.mark.parametrize("host", ["later.example.com", "silent.example.com"])
async def test_a_name_that_is_not_known_yet_may_be_by_then(
    site: Site, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hector.runtime.runtime._KNOWN_WITHIN", 0.01)
    assert (await make(site, await a_task(site), {"url": f"https://{host}/"})).status_code == 200


async def test_a_task_has_only_so_many(site: Site) -> None:
    task_id = await a_task(site)
    for _ in range(MAX_CONFIGS):
        assert (await make(site, task_id, {"url": URL})).is_success
    refused = await make(site, task_id, {"url": URL})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, 400)
    assert "limit" in refused.json()["error"]["message"]


async def test_webhooks_are_their_users_alone(start: StartSite) -> None:
    site = await start(push=PushSettings(Targets(resolve=somewhere)), auth=tokens(), loopback=False)
    task = await site.ask("say hi", headers=bearer(ALICE))
    assert (await make(site, task["id"], CONFIG, V1 | bearer(ALICE))).is_success
    bob = V1 | bearer(BOB)
    for answer in (
        await make(site, task["id"], CONFIG, bob),
        await site.http.get(place(task["id"]), headers=bob),
        await site.http.get(place(task["id"], "c"), headers=bob),
        await site.http.delete(place(task["id"], "c"), headers=bob),
    ):
        assert answer.status_code == 404
        assert "not found" in answer.json()["error"]["message"]
    assert (await site.http.get(place(task["id"], "c"), headers=V1 | bearer(ALICE))).is_success


async def test_ids_in_paths_may_be_anything(site: Site) -> None:
    task_id = await a_task(site)
    config_id = "a/b c%\U0001f600"
    await make(site, task_id, {"id": config_id, "url": URL})
    encoded = "a%2Fb%20c%25%F0%9F%98%80"
    assert (await site.http.get(place(task_id, encoded), headers=V1)).json()["id"] == config_id
    assert (await site.http.delete(place(task_id, encoded), headers=V1)).is_success
    assert (await site.http.get(place(task_id, encoded), headers=V1)).status_code == 404


async def test_where_there_are_none_that_is_said(start: StartSite) -> None:
    site = await start()
    task_id = await a_task(site)
    answers = [
        await make(site, task_id),
        await site.http.get(place(task_id), headers=V1),
        await site.http.get(place(task_id, "c"), headers=V1),
        await site.http.delete(place(task_id, "c"), headers=V1),
        await site.send("say hi", configuration={"taskPushNotificationConfig": CONFIG}),
    ]
    for answer in answers:
        reason = answer.json()["error"]["details"][0]["reason"]
        assert (answer.status_code, reason) == (400, "PUSH_NOTIFICATION_NOT_SUPPORTED")
    refused = await call(site, "tasks/pushNotificationConfig/list", id=task_id)
    assert refused["error"]["code"] == -32003


@pytest.mark.parametrize("push", [True, False])
async def test_the_card_tells_the_truth(start: StartSite, push: bool) -> None:
    site = await start(push=PushSettings(Targets()) if push else None)
    card = (await site.http.get("/v1/agents/a/.well-known/agent-card.json")).json()
    assert card["capabilities"].get("pushNotifications", False) is push
