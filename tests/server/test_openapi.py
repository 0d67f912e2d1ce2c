"""The OpenAPI document: valid, complete, and true of what is answered."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from hector.domain.messages import File, Text, UserMessage
from hector.runtime.push.deliveries import PushSettings
from hector.runtime.push.targets import Targets
from hector.server.a2a.listing import PARAMETERS
from hector.tools.function import FunctionTool
from tests.server.site import ALICE, Site, StartSite, bearer, events, said, tokens

ROOT = "/v1/agents/a"
V1, V03 = {"a2a-version": "1.0"}, {"a2a-version": "0.3"}
METHODS = ("get", "post", "put", "delete", "patch")


def new(text: str, **more: Any) -> Any:
    return {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}], **more}}


def kinds(text: str) -> Any:
    parts = [{"kind": "text", "text": text}]
    return {"message": {"messageId": "k", "role": "user", "parts": parts, "kind": "message"}}


async def described(site: Site) -> Any:
    answer = await site.http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


@pytest.mark.parametrize("signs_in", [False, True])
async def test_it_is_valid(start: StartSite, signs_in: bool) -> None:
    site = await start(auth=tokens() if signs_in else None)
    document = await described(site)
    OpenAPIV31SpecValidator(document).validate()
    assert ("security" in document) == signs_in
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    mentioned = set(re.findall(r"#/components/schemas/([\w.]+)", json.dumps(document)))
    assert mentioned == set(document["components"]["schemas"])


async def test_every_route_is_in_it_and_every_path_in_it_is_served(site: Site) -> None:
    document = await described(site)
    told = {(method, path.removeprefix("/v1")) for method, path, _ in operations(document)}
    routed = {
        (method, route.path_format)
        for route in site.app._routes
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert told == routed
    for method, path in told:
        answer = await site.http.request(method, re.sub(r"\{\w+\}", "a", f"/v1{path}"))
        assert answer.status_code != 405
        assert "nothing is served at this path" not in answer.text


async def test_every_operation_tells_what_its_errors_are(site: Site) -> None:
    for method, path, operation in operations(await described(site)):
        assert "default" in operation["responses"], f"{method} {path}"


@pytest.mark.parametrize("text", ["1.0", "0.3", "1.0.1", "0.3.0", "1", "2.0", "1.0.1.2", "x"])
async def test_the_versions_are_those_that_are_spoken(site: Site, text: str) -> None:
    schema = (await described(site))["components"]["parameters"]["A2A-Version"]["schema"]
    answer = await site.http.get("/v1/agents", headers={"a2a-version": text})
    assert (answer.status_code == 200) == bool(re.search(schema["pattern"], text))


async def test_lists_have_their_parameters(site: Site) -> None:
    document = await described(site)
    for path in (f"{ROOT}/tasks".replace("/a/", "/{agent}/"), "/tasks"):
        named = [each["$ref"] for each in document["paths"][path]["get"]["parameters"] if "$ref" in each]
        found = {document["components"]["parameters"][ref.rpartition("/")[2]]["name"] for ref in named}
        assert found - {"tenant", "A2A-Version", "A2A-Extensions"} == PARAMETERS


async def test_who_is_let_in_without_a_token_is_told(start: StartSite) -> None:
    site = await start(auth=tokens())
    for method, path, operation in operations(await described(site)):
        answer = await site.http.request(method, re.sub(r"\{\w+\}", "a", path))
        assert (answer.status_code == 401) == (operation.get("security") != []), path


async def test_it_is_kept_by_clients(start: StartSite) -> None:
    site = await start(base_url="https://x.example/y")
    first = await site.http.get("/openapi.json")
    assert first.json()["servers"] == [{"url": "https://x.example/y"}]
    again = await site.http.get("/openapi.json", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304


class Checker:
    """Compares answers with what the document says of them."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.seen: set[tuple[str, str]] = set()
        self._paths = [
            (method, path, re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), operation)
            for method, path, operation in operations(document)
        ]

    def check(self, answer: httpx.Response) -> None:
        asked = answer.request
        method, path, operation = next(
            (method, path, operation)
            for method, path, pattern, operation in self._paths
            if method == asked.method and pattern.fullmatch(asked.url.raw_path.decode().partition("?")[0])
        )
        self.seen.add((method, path))
        responses = operation["responses"]
        response = responses.get(str(answer.status_code)) or self._resolved(responses["default"])
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if "content" not in response:
            assert not answer.content
            return
        content = response["content"][kind]
        if kind == "text/event-stream":
            told = events(answer)
            assert told
            for event in told:
                self.fits(event, content["schema"]["properties"]["data"]["contentSchema"])
        else:
            self.fits(answer.json(), content["schema"])
        if asked.content and answer.is_success:
            body = operation["requestBody"]["content"][asked.headers["content-type"]]
            self.fits(json.loads(asked.content), body["schema"])

    def fits(self, value: Any, schema: Any) -> None:
        Draft202012Validator(schema | {"components": self.document["components"]}).validate(value)

    def _resolved(self, response: Any) -> Any:
        return self.document["components"]["responses"]["Error"] if "$ref" in response else response


async def test_answers_are_as_it_says(start: StartSite) -> None:
    def clock() -> str:
        """The time."""
        return "noon"

    async def somewhere(*_: object) -> list[str]:
        return ["93.184.216.34"]

    push = PushSettings(Targets(resolve=somewhere))
    site = await start(auth=tokens(), tools=[FunctionTool(clock)], default_agent="a", push=push)
    site.http.headers.update(bearer(ALICE))
    checker = Checker(await described(site))

    async def ask(method: str, path: str, **more: Any) -> Any:
        answer = await site.http.request(method, path, **more)
        checker.check(answer)
        return answer.json() if answer.content and "json" in answer.headers["content-type"] else None

    for base in (ROOT, ""):
        for suffix in ("message:send", "message:stream"):
            await ask("POST", f"{base}/{suffix}", **said("think x\ncall clock\nsay hi", "s"))
            await ask(
                "POST", f"{base}/{suffix}", json=new("ask who?", messageId=f"{base}{suffix}"), headers=V1
            )
            await ask("POST", f"{base}/{suffix}", json={"message": {"content": []}})
        sent = await ask("POST", f"{base}/message:send", json=new("say hi"), headers=V1)
        task = f"{base}/tasks/{sent['task']['id']}"
        for headers in (V1, V03):
            await ask("GET", f"{task}?historyLength=5", headers=headers)
            await ask("GET", f"{base}/tasks", headers=headers)
            await ask("GET", f"{base}/tasks?includeArtifacts=true&historyLength=2&pageSize=2", headers=V1)
            await ask("GET", f"{task}:subscribe", headers=headers)
            await ask("POST", f"{task}:subscribe", headers=headers)
            await ask("POST", f"{task}:cancel", headers=headers)
            config: dict[str, Any] = {"id": "c", "url": "https://example.com/hook"}
            if headers is V03:
                config = {"config": {"pushNotificationConfig": config}}
            configs = f"{task}/pushNotificationConfigs"
            await ask("POST", configs, json=config, headers=headers)
            await ask("GET", configs, headers=headers)
            await ask("GET", f"{configs}/c", headers=headers)
            await ask("DELETE", f"{configs}/c", headers=headers)
        await ask(
            "POST",
            base or "/",
            json={"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": new("say x")},
        )
        await ask("POST", base or "/", json={"jsonrpc": "2.0", "method": "GetTask", "id": None})
        for card in ("extendedAgentCard", "card", ".well-known/agent-card.json"):
            await ask("GET", f"{base}/{card}")
            await ask("GET", f"{base}/{card}", headers={"if-none-match": "*"})
    await ask("POST", f"{ROOT}/message:send", json=kinds("say hi"))
    await ask("GET", f"{ROOT}/tasks/none")
    big = File("image/png", "x.png", b"x" * 70_000)
    handle = await site.runtime.send("a", "alice", UserMessage((Text("fail auth"), big)), session_id="s")
    await handle.result()
    for path in (
        "/v1/agents",
        f"{ROOT}/sessions?limit=1",
        f"{ROOT}/sessions/s",
        "/health",
        "/ready",
        "/openapi.json",
    ):
        await ask("GET", path)
    await ask("DELETE", f"{ROOT}/sessions/s")
    await ask("DELETE", f"{ROOT}/sessions/s")
    assert checker.seen == {(method, path) for method, path, _ in operations(checker.document)}


def test_a_checker_finds_what_is_not_so() -> None:
    document = {
        "components": {"schemas": {"X": {"type": "object", "required": ["x"]}}},
        "paths": {
            "/x": {
                "get": {
                    "responses": {
                        "200": {
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/X"}}}
                        }
                    }
                }
            }
        },
    }
    request = httpx.Request("GET", "http://h/x")
    Checker(document).check(httpx.Response(200, json={"x": 1}, request=request))
    with pytest.raises(Exception, match="'x' is a required property"):
        Checker(document).check(httpx.Response(200, json={"y": 1}, request=request))
