"""A2A 0.3.0, section by section, over each transport; tests are named by the section that they prove.

Rules are written in the words of JSON-RPC; `words_0_3` says them over HTTP+JSON and gRPC as protobuf has
them, and holds every answer against section 6. Elsewhere are proven:

    3.2.2, 4.1     TLS                                  tests/server/test_tls.py
    3.5.6          lists of tasks                       tests/server/test_listing.py
    5.5.6          signatures                           tests/server/test_signing.py
    6.11           envelopes of JSON-RPC                tests/server/test_jsonrpc.py
    7.9            streams after a lost connection      tests/server/test_stream.py, tests/clients
    9.5            webhooks, their retries              tests/runtime/test_push.py

Not of this server: answers that are messages (it answers with tasks), the states rejected and auth-required
with section 4.5, errors -32005 and -32006, transports and methods of one's own (3.2.4, 3.4.3, 3.5.5), duties
of clients (5.6.3, 11.2). GRPC's methods (3.5.6) have the names of a2a.proto, which 3.2.2 calls normative.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

import pytest
from a2a.compat.v0_3 import types
from google.api import annotations_pb2

from hector.domain.profiles import Profile, Skill
from tests.fakes.webhook import Receiver
from tests.server.contract.conftest import Serve
from tests.server.contract.serving import Served
from tests.server.contract.spoken import TRANSPORTS, Json, Refusal, Transport, refusal, speak, told
from tests.server.contract.words_0_3 import METHODS, SERVICE, Words03
from tests.server.site import ALICE, BOB, tokens

WORDS = Words03()
STREAMS = frozenset({"message/stream", "tasks/resubscribe"})
_numbers = itertools.count()


@pytest.fixture
def a2a(served: Served, transport: str) -> Transport:
    return speak(served, WORDS, transport)


def said(text: str, configuration: Json | None = None, **more: Any) -> Json:
    message = {
        "kind": "message",
        "messageId": f"m{next(_numbers)}",
        "role": "user",
        "parts": [{"kind": "text", "text": text}],
    } | more
    return {"message": message} | ({"configuration": configuration} if configuration is not None else {})


async def ask(a2a: Transport, text: str, **more: Any) -> Json:
    return await a2a("message/send", said(text, **more))


async def a_task(a2a: Transport, state: str) -> Json:
    match state:
        case "completed":
            return await ask(a2a, "say hi")
        case "failed":
            return await ask(a2a, "fail request")
        case "input-required":
            return await ask(a2a, "call ask")
        case "working":
            return await ask(a2a, "wait g\nsay done", configuration={"blocking": False})
        case _:
            return await a2a("tasks/cancel", {"id": (await a_task(a2a, "working"))["id"]})


def state_of(task: Json) -> str:
    return str(task["status"]["state"])


def text_of(task: Json) -> str:
    (artifact,) = task["artifacts"]
    return "".join(part["text"] for part in artifact["parts"])


async def refused_by(a2a: Transport, operation: str, params: Json, **headers: str) -> Refusal:
    return await refusal((a2a.events if operation in STREAMS else a2a)(operation, params, **headers))


ENDS = ("completed", "failed", "canceled")
CONFIG: Json = {
    "id": "c",
    "url": "http://localhost:1/hook",
    "token": "tok",
    "authentication": {"schemes": ["Bearer"], "credentials": "secret"},
}
UNKNOWN: Mapping[str, Json] = {
    "message/send": said("say x", taskId="none"),
    "message/stream": said("say x", taskId="none"),
    "tasks/get": {"id": "none"},
    "tasks/cancel": {"id": "none"},
    "tasks/resubscribe": {"id": "none"},
    "tasks/pushNotificationConfig/set": {"taskId": "none", "pushNotificationConfig": CONFIG},
    "tasks/pushNotificationConfig/get": {"id": "none", "pushNotificationConfigId": "c"},
    "tasks/pushNotificationConfig/list": {"id": "none"},
    "tasks/pushNotificationConfig/delete": {"id": "none", "pushNotificationConfigId": "c"},
}
"""What each operation that names a task is asked of one that is not there."""

# ------------------------------------------------------------------- 3. Transport and Format


async def test_3_2_1_json_rpc_is_application_json(served: Served) -> None:
    """And section 7."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "none"}}
    answer = await served.http.post("/v1/agents/a", json=call)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    refused = await served.http.post("/v1/agents/a", content=b"{}", headers={"content-type": "text/plain"})
    assert refused.status_code == 415
    assert "error" in refused.json()


async def test_3_2_3_http_json_is_application_json(served: Served) -> None:
    a2a = speak(served, WORDS, "HTTP+JSON")
    task = await ask(a2a, "say x")
    for path in (f"tasks/{task['id']}", "tasks/none"):
        answer = await served.http.get(f"/v1/agents/a/v1/{path}")
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("operation", ["message/stream", "tasks/resubscribe"])
async def test_3_3_a_stream_is_of_server_sent_events(served: Served, operation: str) -> None:
    task = await ask(speak(served, WORDS, "JSONRPC"), "say x")
    params = said("say y") if operation == "message/stream" else {"id": task["id"]}
    asked = WORDS.ask(operation, params)
    answers = [
        await served.http.post(
            "/v1/agents/a", json={"jsonrpc": "2.0", "id": 1, "method": operation, "params": params}
        ),
        await served.http.post(f"/v1/agents/a/{asked.path}", json=asked.body),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("\n\n")


async def test_3_4_1_the_transports_do_the_same(served: Served) -> None:
    """The same conversation over each, and each finds what another has done."""
    talks = [await _talk(served, transport) for transport in TRANSPORTS]
    assert talks[0] == talks[1] == talks[2]


async def _talk(served: Served, transport: str) -> list[Any]:
    a2a = speak(served, WORDS, transport)
    others = [speak(served, WORDS, each) for each in TRANSPORTS]
    found: list[Any] = []
    context = (await ask(a2a, "say one"))["contextId"]
    for text in ("stream 3 two", 'data {"n": 3}', "fail rate_limit", "call ask"):
        events = await told(a2a.events("message/stream", said(text, contextId=context)))
        task = events[0]["id"]
        seen = [await each("tasks/get", {"id": task, "historyLength": 5}) for each in others]
        names: dict[str, str] = {}
        assert _nameless(seen[0], {}) == _nameless(seen[1], {}) == _nameless(seen[2], {})
        found += [_nameless(each, names) for each in (*events, seen[0])]
    return found


def _nameless(value: Any, names: dict[str, str]) -> Any:
    """With the ids by the order in which they come, and without times."""
    if isinstance(value, dict):
        return {
            name: _nameless(value[name], names)
            for name in sorted(value)
            if name not in {"timestamp", "artifactId", "messageId"}
        }
    if isinstance(value, list):
        return [_nameless(each, names) for each in value]
    if isinstance(value, str) and re.fullmatch(r"[0-9a-zA-Z-]{20,}", value):
        return names.setdefault(value, f"id {len(names)}")
    return value


async def test_3_5_6_each_row_is_served(a2a: Transport) -> None:
    """What is not served is not found as a method, and not as a task; and section 8.2."""
    for operation in METHODS:
        refused = await refused_by(a2a, operation, UNKNOWN.get(operation, {}))
        if operation == "agent/getAuthenticatedExtendedCard":
            assert refused.reason == "EXTENDED_AGENT_CARD_NOT_CONFIGURED"
            assert a2a.name != "JSONRPC" or refused.code == -32007
            continue
        assert refused.reason == "TASK_NOT_FOUND"
        assert refused.code == {"HTTP+JSON": 404, "JSONRPC": -32001, "GRPC": "NOT_FOUND"}[a2a.name]


async def test_3_5_6_each_path_of_the_definitions_is_served(served: Served) -> None:
    task = (await ask(speak(served, WORDS, "HTTP+JSON"), "say x"))["id"]
    names = {"GetTaskPushNotificationConfig": 404, "CancelTask": 400, "GetAgentCard": 400}
    for method in SERVICE.methods:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        verb = rule.WhichOneof("pattern")
        # a2a.proto has task/*/pushNotificationConfigs in the place of section 3.5.6's path.
        place = getattr(rule, verb).replace("{parent=task/*/", "{parent=tasks/*}/").rstrip("}")
        place = re.sub(r"\{\w+=([^}]*)\}?", r"\1", place).replace("*", task)
        body = WORDS.ask("message/send", said("say y")).body
        if "PushNotification" in method.name:
            body = {"pushNotificationConfig": CONFIG | {"id": "d"}}
        answer = await served.http.request(
            verb.upper(), f"/v1/agents/a{place}", json=body if verb == "post" else None
        )
        assert answer.status_code == names.get(method.name, 200), f"{verb} {place}"


# ---------------------------------------------------- 4. Authentication and Authorization


async def test_4_4_every_request_is_authenticated(serve: Serve, transport: str) -> None:
    """And section 7.10."""
    a2a = speak(await serve(auth=tokens()), WORDS, transport)
    for operation, token in itertools.product(METHODS, ("-", "Bearer wrong")):
        refused = await refused_by(a2a, operation, UNKNOWN.get(operation, {}), authorization=token)
        assert refused.code == {"HTTP+JSON": 401, "JSONRPC": -32000, "GRPC": "UNAUTHENTICATED"}[transport]
        assert transport == "GRPC" or refused.headers["www-authenticate"].startswith("Bearer")


async def test_4_6_what_is_anothers_is_not_there(serve: Serve, transport: str) -> None:
    a2a = speak(await serve(auth=tokens()), WORDS, transport)
    alice, bob = (f"Bearer {token}" for token in (ALICE, BOB))
    task = (await a2a("message/send", said("call ask"), authorization=alice))["id"]
    config = {"taskId": task, "pushNotificationConfig": CONFIG}
    await a2a("tasks/pushNotificationConfig/set", config, authorization=alice)
    for operation, params in UNKNOWN.items():
        told_of = []
        for each in (task, "f" * len(task)):
            named = {name: each if value == "none" else value for name, value in params.items()}
            asked = said("say x", taskId=each) if "message" in params else named
            refused = await refused_by(a2a, operation, asked, authorization=bob)
            told_of.append((refused.code, refused.reason, refused.message.replace(each, "ID")))
        assert told_of[0] == told_of[1]
        assert told_of[0][1] == "TASK_NOT_FOUND"
    of_it = {"id": task, "pushNotificationConfigId": "c"}
    assert await a2a("tasks/pushNotificationConfig/get", of_it, authorization=alice) == config


# --------------------------------------------------- 5. Agent Discovery: The Agent Card


async def test_5_3_to_5_6_the_card_tells_where_what_is_spoken(serve: Serve) -> None:
    served = await serve(default_agent="a")
    for place in ("/.well-known/agent-card.json", "/v1/agents/a/.well-known/agent-card.json"):
        card = types.AgentCard.model_validate((await served.http.get(place)).json())
        assert card.protocol_version == "0.3.0"
        assert card.url == f"{served.server.url}/v1/agents/a"
        assert card.preferred_transport == "HTTP+JSON"
        interfaces = [(each.transport, each.url) for each in card.additional_interfaces or ()]
        assert interfaces[0] == (card.preferred_transport, card.url), "section 5.6.4"
        assert interfaces == [
            ("HTTP+JSON", card.url),
            ("JSONRPC", card.url),
            ("GRPC", served.server.grpc_address),
        ]
        assert (card.capabilities.streaming, card.capabilities.push_notifications) == (True, True)


async def test_5_6_2_what_the_card_names_is_there(serve: Serve, transport: str) -> None:
    """By who knows no tenants, as 0.3's cards have none."""
    a2a = speak(await serve(default_agent="a"), WORDS, transport)
    headers = {"agent_name": "-"} if transport == "GRPC" else {}
    assert text_of(await a2a("message/send", said("say x"), **headers)) == "x"


# ----------------------------------------------------------------- 6. Protocol Data Objects

PARTS: Mapping[str, Json] = {
    "6.5.1 TextPart": {"kind": "text", "text": "hi", "metadata": {"a": 1}},
    "6.5.3 DataPart": {"kind": "data", "data": {"a": [1, None, {"b": "c"}]}},
    "6.6.1 FileWithBytes": {
        "kind": "file",
        "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "a.txt"},
    },
    "6.6.2 FileWithUri": {
        "kind": "file",
        "file": {"uri": "https://example.com/a.png", "mimeType": "image/png", "name": "a.png"},
    },
}


async def test_6_5_parts_of_each_kind_are_kept_as_they_are(a2a: Transport) -> None:
    """And sections 9.6 and 9.7, what a client sends."""
    parts: list[Any] = [{"kind": "text", "text": "say x"}, *PARTS.values()]
    task = await ask(a2a, "", parts=parts, metadata={"k": {"l": [1]}}, extensions=["urn:x"])
    found = await a2a("tasks/get", {"id": task["id"], "historyLength": 2})
    message = found["history"][0]
    assert (message["parts"], message["metadata"], message["extensions"]) == (
        parts,
        {"k": {"l": [1]}},
        ["urn:x"],
    )
    assert (message["taskId"], message["contextId"]) == (task["id"], task["contextId"])


@pytest.mark.parametrize(
    ("order", "part"),
    [
        ('data {"a": [1]}', {"kind": "data", "data": {"a": [1]}}),
        (
            "file a.txt text/plain hi",
            {"kind": "file", "file": {"bytes": "aGk=", "name": "a.txt", "mimeType": "text/plain"}},
        ),
        (
            "file a.png image/png https://example.com/a",
            {
                "kind": "file",
                "file": {"uri": "https://example.com/a", "name": "a.png", "mimeType": "image/png"},
            },
        ),
    ],
)
async def test_6_7_an_artifact_has_parts_of_each_kind(a2a: Transport, order: str, part: Json) -> None:
    """And sections 9.6 and 9.7, what is answered."""
    (artifact,) = (await ask(a2a, order))["artifacts"]
    assert artifact["artifactId"]
    assert artifact["parts"] == [part]


async def test_6_8_to_6_10_and_7_5_to_7_8_configurations(a2a: Transport) -> None:
    task = (await a_task(a2a, "working"))["id"]
    for name in ("c", "d"):
        config = {"taskId": task, "pushNotificationConfig": CONFIG | {"id": name}}
        assert await a2a("tasks/pushNotificationConfig/set", config) == config
        named = {"id": task, "pushNotificationConfigId": name}
        assert await a2a("tasks/pushNotificationConfig/get", named) == config
    listed: Any = await a2a("tasks/pushNotificationConfig/list", {"id": task})
    assert [each["pushNotificationConfig"]["id"] for each in listed] == ["c", "d"]
    for _ in range(2):
        deleted = {"id": task, "pushNotificationConfigId": "c"}
        assert await a2a("tasks/pushNotificationConfig/delete", deleted) is None
    listed = await a2a("tasks/pushNotificationConfig/list", {"id": task})
    assert [each["pushNotificationConfig"]["id"] for each in listed] == ["d"]
    missing = {"id": task, "pushNotificationConfigId": "c"}
    assert (await refusal(a2a("tasks/pushNotificationConfig/get", missing))).reason == "TASK_NOT_FOUND"


async def test_6_11_2_an_answer_has_the_id_of_its_call(served: Served) -> None:
    for call_id in ("x", "", 0, -7, 2**53, None):
        for method, params in (("tasks/get", {"id": "none"}), ("message/stream", said("say x"))):
            call = {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}
            answer = await served.http.post("/v1/agents/a", json=call)
            assert f'"id":{_json(call_id)}'.encode() in answer.content
            assert (b'"result"' in answer.content) != (b'"error"' in answer.content)


def _json(value: Any) -> str:
    return "null" if value is None else f'"{value}"' if isinstance(value, str) else str(value)


# ---------------------------------------------------------------------- 7. Protocol RPC Methods


@pytest.mark.parametrize("state", [*ENDS, "input-required", "working"])
async def test_7_1_and_7_3_a_task_is_told_as_it_stands(a2a: Transport, state: str) -> None:
    task = await a_task(a2a, state)
    assert (task["kind"], state_of(task)) == ("task", state)
    assert task["id"]
    assert task["contextId"]
    found = await a2a("tasks/get", {"id": task["id"]})
    assert (found["id"], found["contextId"], state_of(found)) == (task["id"], task["contextId"], state)
    if state == "input-required":
        assert task["status"]["message"]["parts"] == [{"kind": "text", "text": "which city?"}]
        assert task["status"]["message"]["role"] == "agent"


@pytest.mark.parametrize("operation", ["message/send", "message/stream"])
@pytest.mark.parametrize("state", ENDS)
async def test_7_1_a_task_that_has_ended_is_not_begun_again(
    a2a: Transport, operation: str, state: str
) -> None:
    task = await a_task(a2a, state)
    refused = await refused_by(a2a, operation, said("say more", taskId=task["id"]))
    assert refused.reason == "UNSUPPORTED_OPERATION"


@pytest.mark.parametrize("blocking", [None, True, False])
async def test_7_1_1_who_waits_is_answered_at_the_end(a2a: Transport, blocking: bool | None) -> None:
    wishes = None if blocking is None else {"blocking": blocking}
    task = await ask(a2a, "pause 0.05\nsay x", configuration=wishes)
    assert state_of(task) == ("working" if blocking is False else "completed")


async def test_7_1_1_and_7_3_1_history_is_as_long_as_is_asked_for(a2a: Transport) -> None:
    for length, roles in ((1, ["agent"]), (2, ["user", "agent"]), (9, ["user", "agent"])):
        sent = await ask(a2a, "say x", configuration={"historyLength": length})
        found = await a2a("tasks/get", {"id": sent["id"], "historyLength": length})
        for task in (sent, found):
            assert [each["role"] for each in task["history"]] == roles


async def test_7_2_a_stream_is_the_task_its_updates_and_its_end(a2a: Transport) -> None:
    task, *pieces, end = await told(a2a.events("message/stream", said("stream 3 abc")))
    assert (task["kind"], end["kind"]) == ("task", "status-update")
    assert {each["kind"] for each in pieces} == {"artifact-update"}
    assert {(each["taskId"], each["contextId"]) for each in (*pieces, end)} == {
        (task["id"], task["contextId"])
    }
    assert "".join(part["text"] for each in pieces for part in each["artifact"]["parts"]) == "abc"
    assert [each.get("append", False) for each in pieces] == [False, True, True, True]
    assert [each.get("lastChunk", False) for each in pieces] == [False, False, False, True]
    assert (state_of(end), end["final"]) == ("completed", True)


@pytest.mark.parametrize(("text", "state"), [("fail request", "failed"), ("call ask", "input-required")])
async def test_7_2_2_the_last_update_says_that_it_is(a2a: Transport, text: str, state: str) -> None:
    events = await told(a2a.events("message/stream", said(text)))
    updates = [each for each in events if each["kind"] == "status-update"]
    assert [each["final"] for each in updates] == [*[False] * (len(updates) - 1), True]
    assert (events[-1], state_of(events[-1])) == (updates[-1], state)


async def test_7_2_progress_is_told_at_once(a2a: Transport, served: Served) -> None:
    gate = served.model.gate("g")
    events = a2a.events("message/stream", said("stream 2 ab\nwait g"))
    assert [(await anext(events))["kind"] for _ in range(2)] == ["task", "artifact-update"]
    gate.opened.set()
    assert state_of((await told(events))[-1]) == "completed"


async def test_7_4_what_runs_is_canceled(a2a: Transport, served: Served) -> None:
    task = await a_task(a2a, "working")
    await served.model.gate("g").reached.wait()
    assert state_of(await a2a("tasks/cancel", {"id": task["id"]})) == "canceled"
    assert served.model.running == 0


async def test_7_9_who_lost_the_connection_gets_the_rest(a2a: Transport, served: Served) -> None:
    first = a2a.events("message/stream", said("wait g\nstream 2 ab"))
    task = (await anext(first))["id"]
    await first.aclose()
    again = a2a.events("tasks/resubscribe", {"id": task})
    assert (await anext(again))["id"] == task
    served.model.gate("g").opened.set()
    events = await told(again)
    assert (state_of(events[-1]), events[-1]["final"]) == ("completed", True)


@pytest.mark.parametrize("state", ENDS)
async def test_7_9_of_what_has_ended_the_task_is_told(a2a: Transport, state: str) -> None:
    """As a2a.proto has it of TaskSubscription."""
    task = await a_task(a2a, state)
    (event,) = await told(a2a.events("tasks/resubscribe", {"id": task["id"]}))
    assert (event["kind"], event["id"], state_of(event)) == ("task", task["id"], state)


async def test_7_10_who_signed_in_is_shown_the_extended_card(serve: Serve, transport: str) -> None:
    """And section 9.1."""
    served = await serve(
        auth=tokens(), profile=Profile(extended_skills=(Skill("secret", "S", "of friends"),))
    )
    public = types.AgentCard.model_validate(
        (await served.http.get("/v1/agents/a/.well-known/agent-card.json")).json()
    )
    assert public.supports_authenticated_extended_card
    assert [each.id for each in public.skills] == ["chat"]
    a2a = speak(served, WORDS, transport)
    card = await a2a("agent/getAuthenticatedExtendedCard", authorization=f"Bearer {ALICE}")
    assert [each["id"] for each in card["skills"]] == ["chat", "secret"]
    assert (card["protocolVersion"], card["url"]) == ("0.3.0", public.url)
    assert card["securitySchemes"]["bearer"]["scheme"] == "Bearer"


# --------------------------------------------------------------------------- 8. Error Handling

ERRORS: Mapping[str, tuple[int, str, int]] = {
    "TASK_NOT_FOUND": (-32001, "NOT_FOUND", 404),
    "TASK_NOT_CANCELABLE": (-32002, "FAILED_PRECONDITION", 400),
    "PUSH_NOTIFICATION_NOT_SUPPORTED": (-32003, "FAILED_PRECONDITION", 400),
    "UNSUPPORTED_OPERATION": (-32004, "FAILED_PRECONDITION", 400),
    "INVALID_PARAMS": (-32602, "INVALID_ARGUMENT", 400),
}
"""The rows of 8.1 and 8.2 that each transport has; 0.3 has JSON-RPC's codes alone, the others are 1.0's."""


async def test_8_each_error_has_its_code(serve: Serve, transport: str) -> None:
    a2a = speak(await serve(push=None), WORDS, transport)
    task = await a_task(a2a, "completed")
    asked: Mapping[str, tuple[str, Json]] = {
        "TASK_NOT_FOUND": ("tasks/get", {"id": "none"}),
        "TASK_NOT_CANCELABLE": ("tasks/cancel", {"id": task["id"]}),
        "PUSH_NOTIFICATION_NOT_SUPPORTED": ("tasks/pushNotificationConfig/list", {"id": task["id"]}),
        "UNSUPPORTED_OPERATION": ("message/send", said("say more", taskId=task["id"])),
        "INVALID_PARAMS": ("message/send", said("", parts=[])),
    }
    assert asked.keys() == ERRORS.keys()
    for reason, (operation, params) in asked.items():
        refused = await refusal(a2a(operation, params))
        rpc, word, http = ERRORS[reason]
        assert refused.code == {"JSONRPC": rpc, "GRPC": word, "HTTP+JSON": http}[transport]
        assert refused.reason == reason
        assert refused.message


WRONG: Mapping[str, tuple[Json, str]] = {
    "MessageSendParams.message": ({}, "message"),
    "Message.messageId": (said("x", messageId=""), "message.messageId"),
    "Message.role": (said("x", role="agent"), "message.role"),
    "Message.parts": (said("x", parts=[]), "message.parts"),
    "Message.parts left out": (
        {"message": {"kind": "message", "messageId": "m", "role": "user"}},
        "message.parts",
    ),
    "Part.kind": (said("x", parts=[{}]), "message.parts[0].kind"),
    "TextPart.text": (said("x", parts=[{"kind": "text"}]), "message.parts[0].text"),
    "DataPart.data": (said("x", parts=[{"kind": "data"}]), "message.parts[0].data"),
    "FilePart.file": (said("x", parts=[{"kind": "file"}]), "message.parts[0].file"),
    "FileWithBytes.bytes": (said("x", parts=[{"kind": "file", "file": {}}]), "message.parts[0].file"),
    "PushNotificationConfig.url": (
        said("x", {"pushNotificationConfig": {"id": "c"}}),
        "configuration.pushNotificationConfig.url",
    ),
}


async def test_8_1_what_is_required_is_asked_for_by_its_name(served: Served) -> None:
    """And sections 6 and 10.2. Elsewhere the words are protobuf's: tests/server/test_incoming.py."""
    a2a = speak(served, WORDS, "JSONRPC")
    for operation in ("message/send", "message/stream"):
        for params, field in WRONG.values():
            refused = await refused_by(a2a, operation, params)
            assert (refused.code, refused.fields) == (-32602, [field])
    for operation, params in UNKNOWN.items():
        if "message" not in params and operation != "tasks/pushNotificationConfig/set":
            refused = await refused_by(a2a, operation, {})
            assert refused.code == -32602
            assert len(refused.fields) == 1


# ------------------------------------------------------------ 9. Common Workflows & Examples


async def test_9_4_a_question_is_answered_in_its_task(a2a: Transport) -> None:
    task = await a_task(a2a, "input-required")
    answered = await ask(a2a, "say Paris", taskId=task["id"], contextId=task["contextId"])
    assert (answered["id"], answered["contextId"]) == (task["id"], task["contextId"])
    assert (state_of(answered), text_of(answered)) == ("completed", "Paris")
    elsewhere = await a_task(a2a, "input-required")
    refused = await refusal(a2a("message/send", said("x", taskId=elsewhere["id"], contextId="another")))
    assert refused.code in {400, -32602, "INVALID_ARGUMENT"}


@pytest.mark.parametrize("early", [True, False])
async def test_9_5_a_webhook_is_told_the_task(a2a: Transport, served: Served, early: bool) -> None:
    async with Receiver() as hook:
        config = CONFIG | {"url": hook.url}
        wishes: Json = {"blocking": False} | ({"pushNotificationConfig": config} if early else {})
        task = await ask(a2a, "wait g\nsay x", configuration=wishes)
        if not early:
            params = {"taskId": task["id"], "pushNotificationConfig": config}
            await a2a("tasks/pushNotificationConfig/set", params)
        served.model.gate("g").opened.set()
        got = await hook.until_true(lambda got: bool(got) and state_of(got[-1].json) == "completed")
    for each in got:
        assert each.method == "POST"
        assert each.headers["authorization"] == "Bearer secret"
        assert each.headers["x-a2a-notification-token"] == "tok"
        assert WORDS.by_rpc("tasks/get", each.json)["id"] == task["id"]


async def test_what_all_answers_are_held_against_sees_what_is_wrong() -> None:
    task: Json = {"id": "t", "contextId": "c", "kind": "task", "status": {"state": "working"}}
    assert WORDS.by_rpc("tasks/get", task)
    for wrong in (
        {"kind": "message"},
        {"unheardOf": 1},
        {"status": {"state": "TASK_STATE_WORKING"}},
        {"context_id": "c"},
    ):
        with pytest.raises((ValueError, AssertionError)):
            WORDS.by_rpc("tasks/get", task | wrong)
    for missing in task:
        if missing != "kind":  # which has one value, and so a default
            with pytest.raises(ValueError, match="Field required"):
                WORDS.by_rpc("tasks/get", {name: task[name] for name in task if name != missing})
