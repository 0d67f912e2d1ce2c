"""A2A's extensions: asked for, agreed on, required, and kept with messages."""

from typing import Any

import pytest

from hector.domain.profiles import Extension, Profile
from tests.server.site import ALICE, Site, StartSite, bearer, said, tokens

PROFILE = Profile(extensions=(Extension("urn:must", required=True), Extension("urn:may")))
V1, V03 = {"a2a-version": "1.0"}, {"a2a-version": "0.3"}
RPC = "/v1/agents/a"


def new(text: str, **more: Any) -> Any:
    return {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}], **more}}


def old(text: str, **more: Any) -> Any:
    parts = [{"kind": "text", "text": text}]
    return {"message": {"messageId": "o", "role": "user", "parts": parts, "kind": "message", **more}}


def call(method: str, params: Any) -> Any:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.fixture
async def picky(start: StartSite) -> Site:
    return await start(profile=PROFILE)


@pytest.mark.parametrize("path", ["message:send", "message:stream"])
async def test_what_both_know_is_told_in_the_answer(picky: Site, path: str) -> None:
    asked = V1 | {"a2a-extensions": "urn:other, urn:may ,urn:must"}
    answer = await picky.http.post(f"{RPC}/{path}", json=new("say hi"), headers=asked)
    assert answer.status_code == 200
    assert answer.headers["a2a-extensions"] == "urn:must, urn:may"
    assert "x-a2a-extensions" not in answer.headers


async def test_several_headers_count_together(picky: Site) -> None:
    asked = [("a2a-version", "1.0"), ("a2a-extensions", "urn:must"), ("a2a-extensions", "urn:may")]
    answer = await picky.http.post(f"{RPC}/message:send", json=new("say hi"), headers=asked)
    assert answer.headers["a2a-extensions"] == "urn:must, urn:may"


@pytest.mark.parametrize("method", ["message/send", "message/stream"])
async def test_0_3_has_another_name_for_the_header(picky: Site, method: str) -> None:
    asked = {"x-a2a-extensions": "urn:may"}
    answer = await picky.http.post(RPC, json=call(method, old("say hi")), headers=asked)
    assert answer.headers["x-a2a-extensions"] == "urn:may"
    assert "a2a-extensions" not in answer.headers


async def test_who_asks_for_none_is_told_of_none(picky: Site) -> None:
    answer = await picky.http.post(f"{RPC}/message:send", **said("say hi"))
    assert answer.status_code == 200
    assert "a2a-extensions" not in answer.headers


@pytest.mark.parametrize("headers", [V1, V1 | {"a2a-extensions": "urn:may,urn:must2"}])
async def test_a_client_of_1_0_must_know_what_is_required(picky: Site, headers: dict[str, str]) -> None:
    task = (await picky.http.post(f"{RPC}/message:send", **said("say hi"))).json()["task"]["id"]
    for method, path, body in (
        ("POST", "message:send", new("say hi")),
        ("POST", "message:stream", new("say hi")),
        ("GET", f"tasks/{task}", None),
        ("POST", f"tasks/{task}:cancel", None),
        ("GET", f"tasks/{task}:subscribe", None),
    ):
        answer = await picky.http.request(method, f"{RPC}/{path}", json=body, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["status"]) == (400, "FAILED_PRECONDITION")
        assert error["details"][0]["reason"] == "EXTENSION_SUPPORT_REQUIRED"
        assert "A2A-Extensions: urn:must" in error["message"]
    for name, params in (("SendMessage", new("say hi")), ("GetTask", {"id": task})):
        answer = await picky.http.post(RPC, json=call(name, params), headers=headers)
        assert answer.json()["error"]["code"] == -32008
    assert (await picky.http.get(f"{RPC}/tasks/{task}")).status_code == 200
    assert (await picky.http.get(f"{RPC}/tasks/{task}", headers=V03)).status_code == 200


async def test_cards_are_shown_to_who_does_not_know_them_yet(start: StartSite) -> None:
    site = await start(profile=PROFILE, auth=tokens())
    headers = V1 | bearer(ALICE)
    assert (await site.http.get(f"{RPC}/.well-known/agent-card.json", headers=V1)).status_code == 200
    assert (await site.http.get(f"{RPC}/extendedAgentCard", headers=headers)).status_code == 200
    answer = await site.http.post(RPC, json=call("GetExtendedAgentCard", {}), headers=headers)
    assert "result" in answer.json()


async def test_a_messages_extensions_are_kept(site: Site) -> None:
    notes: dict[str, Any] = {"extensions": ["urn:geo", "urn:x"], "metadata": {"urn:geo": {"lat": 37.7}}}
    sent = await site.http.post(f"{RPC}/message:send", json=new("say hi", **notes), headers=V1)
    path = f"{RPC}/tasks/{sent.json()['task']['id']}?historyLength=9"
    user, agent = (await site.http.get(path, headers=V1)).json()["history"]
    assert {name: user[name] for name in notes} == notes
    assert not notes.keys() & agent.keys()
    bare = await site.http.post(
        f"{RPC}/message:send", json=new("say hi", extensions=["urn:x"], messageId="n"), headers=V1
    )
    path = f"{RPC}/tasks/{bare.json()['task']['id']}?historyLength=9"
    user, _ = (await site.http.get(path, headers=V1)).json()["history"]
    assert (user["extensions"], "metadata" in user) == (["urn:x"], False)


@pytest.mark.parametrize(
    ("extensions", "field"),
    [("urn:x", "message.extensions"), ([1], "message.extensions[0]"), (["a\0"], "message.extensions[0]")],
)
async def test_extensions_are_texts(site: Site, extensions: Any, field: str) -> None:
    answer = await site.http.post(f"{RPC}/message:send", json=new("say hi", extensions=extensions))
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)
