"""A2A 1.0.1, section by section, over each transport; tests are named by the section that they prove.

Every answer is held against sections 4 and 5.5 to 5.7 on its way (`words_1_0`). Elsewhere are proven:

    3.1.4           lists                             tests/server/test_listing.py
    3.2.6, 4.6      the extensions agreed on          tests/server/test_extensions.py, test_grpc.py
    3.6             a version in the query            tests/server/test_rest.py, test_jsonrpc.py
    4.3.3, 13.2     retries, order, SSRF              tests/runtime/test_push.py, test_webhooks.py
    7.1, 13.4       TLS                               tests/server/test_tls.py
    8.4, 8.6        signatures, caching of cards      tests/server/test_signing.py, test_cards.py
    9.5             envelopes of JSON-RPC             tests/server/test_jsonrpc.py
    13.4            limits of size                    tests/server/test_rest.py, test_grpc.py

Not of this server: answers that are messages (it answers with tasks), the states TASK_STATE_REJECTED and
TASK_STATE_AUTH_REQUIRED with section 7.6, InvalidAgentResponseError and ExtendedAgentCardNotConfiguredError
(whoever signs in has a card), ContentTypeNotSupportedError for parts (what a model does not take fails its
task), section 12 (bindings of one's own). What clients must do, 1.4, 3.6.3 and 13.4's advice to operators are
no server's.
"""

import asyncio
import contextlib
import itertools
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from a2a.types import a2a_pb2
from google.api import annotations_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from hector.domain.profiles import Extension, Profile, Skill
from tests.fakes.webhook import Receiver
from tests.server.contract.conftest import Serve
from tests.server.contract.serving import Served
from tests.server.contract.spoken import TRANSPORTS, Json, Refusal, Transport, refusal, speak, told
from tests.server.contract.words_1_0 import REST, SERVICE, Words10, required
from tests.server.site import ALICE, BOB, tokens

WORDS = Words10()
_numbers = itertools.count()


@pytest.fixture
def a2a(served: Served, transport: str) -> Transport:
    return speak(served, WORDS, transport)


def said(text: str, configuration: Json | None = None, **more: Any) -> Json:
    message = {
        "messageId": f"m{next(_numbers)}",
        "role": "ROLE_USER",
        "parts": [{"text": text}],
    } | more
    return {"message": message} | ({"configuration": configuration} if configuration is not None else {})


async def ask(a2a: Transport, text: str, **more: Any) -> Json:
    """The task."""
    task: Json = (await a2a("SendMessage", said(text, **more)))["task"]
    return task


async def a_task(a2a: Transport, state: str) -> Json:
    match state:
        case "TASK_STATE_COMPLETED":
            return await ask(a2a, "say hi")
        case "TASK_STATE_FAILED":
            return await ask(a2a, "fail request")
        case "TASK_STATE_INPUT_REQUIRED":
            return await ask(a2a, "call ask")
        case "TASK_STATE_WORKING":
            return await ask(a2a, "wait g\nsay done", configuration={"returnImmediately": True})
        case _:
            task = await a_task(a2a, "TASK_STATE_WORKING")
            return await a2a("CancelTask", {"id": task["id"]})


def state_of(task: Json) -> str:
    return str(task["status"]["state"])


def text_of(task: Json) -> str:
    (artifact,) = task["artifacts"]
    return "".join(part["text"] for part in artifact["parts"])


ENDS = ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED")

# ---------------------------------------------------------------------------- 3.1. Core Operations


@pytest.mark.parametrize("state", [*ENDS, "TASK_STATE_INPUT_REQUIRED", "TASK_STATE_WORKING"])
async def test_3_1_1_the_answer_is_a_task_as_it_stands(a2a: Transport, state: str) -> None:
    task = await a_task(a2a, state)
    assert state_of(task) == state
    assert task["id"]
    assert task["contextId"]
    found = await a2a("GetTask", {"id": task["id"], "historyLength": 0})
    assert (found["id"], found["contextId"], state_of(found)) == (task["id"], task["contextId"], state)


@pytest.mark.parametrize("operation", ["SendMessage", "SendStreamingMessage"])
@pytest.mark.parametrize("state", ENDS)
async def test_3_1_1_a_task_that_has_ended_takes_no_message(
    a2a: Transport, operation: str, state: str
) -> None:
    task = await a_task(a2a, state)
    refused = await refused_by(a2a, operation, said("say more", taskId=task["id"]))
    assert (refused.reason, refused.domain) == ("UNSUPPORTED_OPERATION", "a2a-protocol.org")


async def test_3_1_2_a_stream_is_the_task_its_updates_and_its_end(a2a: Transport) -> None:
    events = await told(a2a.events("SendStreamingMessage", said("stream 3 abc")))
    kinds = [kind for event in events for kind in event]
    assert kinds == ["task", *["artifactUpdate"] * 4, "statusUpdate"]
    task, *pieces, end = [next(iter(event.values())) for event in events]
    assert state_of(task) in {"TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"}
    assert {(each["taskId"], each["contextId"]) for each in [*pieces, end]} == {
        (task["id"], task["contextId"])
    }
    assert "".join(part["text"] for piece in pieces for part in piece["artifact"]["parts"]) == "abc"
    assert [piece.get("append", False) for piece in pieces] == [False, True, True, True]
    assert [piece.get("lastChunk", False) for piece in pieces] == [False, False, False, True]
    assert state_of(end) == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("fail request", "TASK_STATE_FAILED"),
        ("call ask", "TASK_STATE_INPUT_REQUIRED"),
        ("say x", "TASK_STATE_COMPLETED"),
    ],
)
async def test_3_1_2_a_stream_closes_when_its_task_stops(a2a: Transport, text: str, state: str) -> None:
    events = await told(a2a.events("SendStreamingMessage", said(text)))
    assert state_of(events[-1]["statusUpdate"]) == state
    found = await a2a("GetTask", {"id": events[0]["task"]["id"]})
    assert found["status"]["state"] == state


async def test_3_1_2_progress_is_told_at_once(a2a: Transport, served: Served) -> None:
    gate = served.model.gate("g")
    events = a2a.events("SendStreamingMessage", said("stream 2 ab\nwait g"))
    first = [await anext(events) for _ in range(3)]
    assert [kind for event in first for kind in event] == ["task", "artifactUpdate", "artifactUpdate"]
    gate.opened.set()
    assert state_of((await told(events))[-1]["statusUpdate"]) == "TASK_STATE_COMPLETED"


UNKNOWN: Mapping[str, Json] = {
    "SendMessage": said("say x", taskId="none"),
    "SendStreamingMessage": said("say x", taskId="none"),
    "GetTask": {"id": "none"},
    "CancelTask": {"id": "none"},
    "SubscribeToTask": {"id": "none"},
    "CreateTaskPushNotificationConfig": {"taskId": "none", "url": "http://localhost:1/"},
    "GetTaskPushNotificationConfig": {"taskId": "none", "id": "c"},
    "ListTaskPushNotificationConfigs": {"taskId": "none"},
    "DeleteTaskPushNotificationConfig": {"taskId": "none", "id": "c"},
}
"""What each operation that names a task is asked of one that is not there."""


async def test_3_1_a_task_that_is_not_there_is_not_found(a2a: Transport) -> None:
    """And section 5.3, its table: what is not served is not found as a method, and not as a task."""
    for operation in REST:
        params = UNKNOWN.get(operation, {"pageToken": "none"} if operation == "ListTasks" else {})
        refused = await refused_by(a2a, operation, params)
        other = {"ListTasks": "INVALID_PARAMS", "GetExtendedAgentCard": "UNSUPPORTED_OPERATION"}
        assert (refused.reason, refused.domain) == (
            other.get(operation, "TASK_NOT_FOUND"),
            "a2a-protocol.org",
        )


async def refused_by(a2a: Transport, operation: str, params: Json, **headers: str) -> Any:
    streams = SERVICE.methods_by_name[operation].server_streaming
    return await refusal((a2a.events if streams else a2a)(operation, params, **headers))


async def test_3_1_5_what_runs_is_canceled_once_and_for_all(a2a: Transport, served: Served) -> None:
    """And section 3.3.1: again is no error."""
    task = await a_task(a2a, "TASK_STATE_WORKING")
    await served.model.gate("g").reached.wait()
    for _ in range(2):
        canceled = await a2a("CancelTask", {"id": task["id"]})
        assert (canceled["id"], state_of(canceled)) == (task["id"], "TASK_STATE_CANCELED")
    assert served.model.running == 0


@pytest.mark.parametrize("state", ["TASK_STATE_COMPLETED", "TASK_STATE_FAILED"])
async def test_3_1_5_what_has_ended_cannot_be_canceled(a2a: Transport, state: str) -> None:
    task = await a_task(a2a, state)
    refused = await refusal(a2a("CancelTask", {"id": task["id"]}))
    assert refused.reason == "TASK_NOT_CANCELABLE"
    assert state_of(await a2a("GetTask", {"id": task["id"]})) == state


async def test_3_1_6_who_subscribes_gets_the_task_and_then_its_events(a2a: Transport, served: Served) -> None:
    task = await a_task(a2a, "TASK_STATE_WORKING")
    events = a2a.events("SubscribeToTask", {"id": task["id"]})
    first = (await anext(events))["task"]
    assert (first["id"], state_of(first)) == (task["id"], "TASK_STATE_WORKING")
    served.model.gate("g").opened.set()
    rest = await told(events)
    assert all(set(event) <= {"artifactUpdate", "statusUpdate"} for event in rest)
    assert state_of(rest[-1]["statusUpdate"]) == "TASK_STATE_COMPLETED"


async def test_3_1_6_who_did_not_wait_sees_the_reply_grow(a2a: Transport, served: Served) -> None:
    gate = served.model.gate("grown")
    task = await ask(a2a, "stream 2 ab\nwait grown", configuration={"returnImmediately": True})
    await gate.reached.wait()
    events = a2a.events("SubscribeToTask", {"id": task["id"]})
    assert "task" in await anext(events)
    assert text_of({"artifacts": [(await anext(events))["artifactUpdate"]["artifact"]]}) == "a"
    gate.opened.set()
    assert state_of((await told(events))[-1]["statusUpdate"]) == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("state", ENDS)
async def test_3_1_6_to_what_has_ended_nobody_subscribes(a2a: Transport, state: str) -> None:
    task = await a_task(a2a, state)
    refused = await refusal(a2a.events("SubscribeToTask", {"id": task["id"]}))
    assert refused.reason == "UNSUPPORTED_OPERATION"


CONFIG: Json = {
    "id": "c",
    "url": "http://localhost:1/hook?a=b",
    "token": "tok",
    "authentication": {"scheme": "Bearer", "credentials": "secret"},
}


async def test_3_1_7_to_3_1_10_configurations_are_made_found_listed_and_deleted(a2a: Transport) -> None:
    task = (await a_task(a2a, "TASK_STATE_WORKING"))["id"]
    for name in ("c", "d"):
        made = await a2a("CreateTaskPushNotificationConfig", CONFIG | {"id": name, "taskId": task})
        assert made == CONFIG | {"id": name, "taskId": task}
        assert await a2a("GetTaskPushNotificationConfig", {"taskId": task, "id": name}) == made
    listed = await a2a("ListTaskPushNotificationConfigs", {"taskId": task})
    assert [each["id"] for each in listed["configs"]] == ["c", "d"]
    for _ in range(2):
        assert not await a2a("DeleteTaskPushNotificationConfig", {"taskId": task, "id": "c"})
    listed = await a2a("ListTaskPushNotificationConfigs", {"taskId": task})
    assert [each["id"] for each in listed["configs"]] == ["d"]
    refused = await refusal(a2a("GetTaskPushNotificationConfig", {"taskId": task, "id": "c"}))
    assert refused.reason == "TASK_NOT_FOUND"


async def test_3_1_11_who_signed_in_is_shown_the_extended_card(serve: Serve, transport: str) -> None:
    served = await serve(
        auth=tokens(), profile=Profile(extended_skills=(Skill("secret", "S", "of friends"),))
    )
    a2a = speak(served, WORDS, transport)
    public = (await served.http.get("/v1/agents/a/.well-known/agent-card.json")).json()
    assert public["capabilities"]["extendedAgentCard"] is True
    (scheme,) = public["securitySchemes"].values()
    assert scheme["httpAuthSecurityScheme"] == {"scheme": "Bearer"}
    card = await a2a("GetExtendedAgentCard", {}, authorization=f"Bearer {ALICE}")
    assert [each["id"] for each in card["skills"]] == ["chat", "secret"]
    assert [each["id"] for each in public["skills"]] == ["chat"]


# -------------------------------------------------------------- 3.2. Operation Parameter Objects


@pytest.mark.parametrize("configuration", [None, {}, {"returnImmediately": False}])
@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("pause 0.001\nsay x", "TASK_STATE_COMPLETED"),
        ("fail request", "TASK_STATE_FAILED"),
        ("call ask", "TASK_STATE_INPUT_REQUIRED"),
    ],
)
async def test_3_2_2_who_waits_is_answered_when_the_task_stops(
    a2a: Transport, configuration: Json | None, text: str, state: str
) -> None:
    task = await ask(a2a, text, configuration=configuration)
    assert state_of(task) == state
    assert ("artifacts" in task) == (state == "TASK_STATE_COMPLETED")


async def test_3_2_2_who_does_not_wait_may_ask_again(a2a: Transport, served: Served) -> None:
    task = await a_task(a2a, "TASK_STATE_WORKING")
    assert state_of(task) == "TASK_STATE_WORKING"
    served.model.gate("g").opened.set()
    while state_of(task) == "TASK_STATE_WORKING":
        task = await a2a("GetTask", {"id": task["id"]})
    assert text_of(task) == "done"


async def test_3_2_2_a_stream_is_told_in_any_case(a2a: Transport) -> None:
    asked = said("say x", {"returnImmediately": True})
    events = await told(a2a.events("SendStreamingMessage", asked))
    assert state_of(events[-1]["statusUpdate"]) == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize(("length", "roles"), [(0, ""), (1, "A"), (2, "UA"), (2**31 - 1, "UA")])
async def test_3_2_4_history_is_as_long_as_is_asked_for(a2a: Transport, length: int, roles: str) -> None:
    asked = said("say x", {"historyLength": length})
    sent = (await a2a("SendMessage", asked))["task"]
    found = await a2a("GetTask", {"id": sent["id"], "historyLength": length})
    for task in (sent, found):
        short = {"ROLE_USER": "U", "ROLE_AGENT": "A"}
        assert "".join(short[each["role"]] for each in task.get("history", ())) == roles
        assert ("history" in task) == bool(roles)


async def test_3_2_5_metadata_are_any_json_and_kept(a2a: Transport) -> None:
    metadata: Json = {"a": {"b": [1, 2.5, "x", True, None, {}]}, "c d": ""}
    task = await ask(a2a, "say x", metadata=metadata, extensions=["urn:x"])
    found = await a2a("GetTask", {"id": task["id"], "historyLength": 2})
    assert found["history"][0]["metadata"] == metadata
    assert found["history"][0]["extensions"] == ["urn:x"]


async def test_3_2_6_names_of_service_parameters_have_no_case_and_their_values_do(
    serve: Serve, transport: str
) -> None:
    served = await serve(profile=Profile(extensions=(Extension("urn:must", required=True),)))
    a2a = speak(served, WORDS, transport)
    assert await a2a("SendMessage", said("say x"), A2A_EXTENSIONS="urn:other,urn:must")
    refused = await refusal(a2a("SendMessage", said("say x"), A2a_Extensions="URN:MUST"))
    assert refused.reason == "EXTENSION_SUPPORT_REQUIRED"


# --------------------------------------------------------------------- 3.3. Operation Semantics


async def test_3_3_1_a_message_that_is_sent_again_is_done_once(a2a: Transport, served: Served) -> None:
    asked = said("say x", contextId="s")
    first, again = [(await a2a("SendMessage", asked))["task"] for _ in range(2)]
    streamed = await told(a2a.events("SendStreamingMessage", asked))
    assert _untimed({"": first}) == _untimed({"": again})
    assert first["id"] == again["id"] == streamed[0]["task"]["id"]
    assert len(served.model.requests) == 1


async def test_3_3_2_who_does_not_sign_in_is_told_how(serve: Serve, transport: str) -> None:
    """And section 7.4: for every operation."""
    a2a = speak(await serve(auth=tokens()), WORDS, transport)
    for operation, token in itertools.product(REST, ("-", "Bearer wrong", "Basic x")):
        refused = await refused_by(a2a, operation, UNKNOWN.get(operation, {}), authorization=token)
        assert refused.code == {"HTTP+JSON": 401, "JSONRPC": -32000, "GRPC": "UNAUTHENTICATED"}[transport]
        assert transport == "GRPC" or refused.headers["www-authenticate"].startswith("Bearer")
        assert "token" in refused.message


WRONG: Mapping[str, tuple[str, Json, str]] = {
    "SendMessageRequest.message": ("SendMessage", {}, "message"),
    "Message.message_id": ("SendMessage", said("x", messageId=""), "message.messageId"),
    "Message.role": ("SendMessage", said("x", role="ROLE_UNSPECIFIED"), "message.role"),
    "Message.parts": ("SendMessage", said("x", parts=[]), "message.parts"),
    "Part": ("SendMessage", said("x", parts=[{}]), "message.parts[0]"),
    "GetTaskRequest.id": ("GetTask", {}, "id"),
    "CancelTaskRequest.id": ("CancelTask", {}, "id"),
    "SubscribeToTaskRequest.id": ("SubscribeToTask", {}, "id"),
    "TaskPushNotificationConfig.url": ("CreateTaskPushNotificationConfig", {"taskId": "TASK"}, "url"),
    "AuthenticationInfo.scheme": (
        "CreateTaskPushNotificationConfig",
        {"taskId": "TASK", "url": "http://localhost:1/", "authentication": {"credentials": "x"}},
        "authentication.scheme",
    ),
    "GetTaskPushNotificationConfigRequest.task_id": ("GetTaskPushNotificationConfig", {"id": "c"}, "taskId"),
    "GetTaskPushNotificationConfigRequest.id": ("GetTaskPushNotificationConfig", {"taskId": "TASK"}, "id"),
    "DeleteTaskPushNotificationConfigRequest.task_id": (
        "DeleteTaskPushNotificationConfig",
        {"id": "c"},
        "taskId",
    ),
    "DeleteTaskPushNotificationConfigRequest.id": (
        "DeleteTaskPushNotificationConfig",
        {"taskId": "TASK"},
        "id",
    ),
    "ListTaskPushNotificationConfigsRequest.task_id": ("ListTaskPushNotificationConfigs", {}, "taskId"),
}
"""By what is required: a request without it, and the field that is then named."""


async def test_3_3_2_what_is_required_is_asked_for_by_its_name(a2a: Transport) -> None:
    """And section 5.7."""
    task = (await a_task(a2a, "TASK_STATE_COMPLETED"))["id"]
    for operation, params, field in WRONG.values():
        if a2a.name == "HTTP+JSON" and f"{{{field}}}" in REST[operation][1]:
            continue  # it stands in the path
        named = {name: task if value == "TASK" else value for name, value in params.items()}
        refused = await refused_by(a2a, operation, named)
        assert refused.code == {"HTTP+JSON": 400, "JSONRPC": -32602, "GRPC": "INVALID_ARGUMENT"}[a2a.name]
        assert refused.fields == [field]


def test_3_3_2_nothing_that_a_request_requires_is_left_out_above() -> None:
    def below(message: type[Message]) -> set[str]:
        found = {field.full_name.removeprefix("lf.a2a.v1.") for field in required(message)}
        fields: Any = message.DESCRIPTOR.fields
        for field in fields:
            if field.message_type and field.message_type.full_name.startswith("lf.a2a"):
                found |= below(GetMessageClass(field.message_type))
        return found

    asked = set().union(*(below(GetMessageClass(method.input_type)) for method in SERVICE.methods))
    assert asked <= WRONG.keys()


async def test_3_3_4_without_push_notifications_each_of_their_operations_says_so(
    serve: Serve, transport: str
) -> None:
    a2a = speak(await serve(push=None), WORDS, transport)
    task = await a_task(a2a, "TASK_STATE_COMPLETED")
    for operation in UNKNOWN:
        if "PushNotification" in operation:
            refused = await refused_by(a2a, operation, UNKNOWN[operation] | {"taskId": task["id"]})
            assert refused.reason == "PUSH_NOTIFICATION_NOT_SUPPORTED"
    asked = said("say x", {"taskPushNotificationConfig": CONFIG})
    assert (await refusal(a2a("SendMessage", asked))).reason == "PUSH_NOTIFICATION_NOT_SUPPORTED"


# --------------------------------------------------------------- 3.4. Multi-Turn Interactions


async def test_3_4_1_a_context_is_made_and_told_or_kept(a2a: Transport) -> None:
    made = [await ask(a2a, "say x") for _ in range(2)]
    assert len({task["contextId"] for task in made}) == 2
    assert len({task["id"] for task in made}) == 2, "section 3.4.2"
    assert (await ask(a2a, "say x", contextId="my own"))["contextId"] == "my own"
    again = await ask(a2a, "say x", contextId=made[0]["contextId"])
    assert again["contextId"] == made[0]["contextId"]
    assert again["id"] not in {task["id"] for task in made}, "section 3.4.3"


async def test_3_4_1_a_context_that_cannot_be_is_refused(a2a: Transport, served: Served) -> None:
    before = (await served.runtime.sessions("a", user_id="")).sessions
    refused = await refusal(a2a("SendMessage", said("say x", contextId="x" * 1000)))
    assert refused.fields == ["message.contextId"]
    assert (await served.runtime.sessions("a", user_id="")).sessions == before


async def test_3_4_3_the_task_tells_the_context(a2a: Transport) -> None:
    task = await a_task(a2a, "TASK_STATE_INPUT_REQUIRED")
    assert task["status"]["message"]["parts"] == [{"text": "which city?"}]
    refused = await refusal(a2a("SendMessage", said("say x", taskId=task["id"], contextId="another")))
    assert refused.fields or refused.reason
    answered = await ask(a2a, "say Paris", taskId=task["id"])
    assert (answered["id"], answered["contextId"]) == (task["id"], task["contextId"])
    assert (state_of(answered), text_of(answered)) == ("TASK_STATE_COMPLETED", "Paris")


async def test_3_4_3_a_context_is_a_conversation(a2a: Transport, served: Served) -> None:
    await ask(a2a, "say red", contextId="s")
    await ask(a2a, "say blue", contextId="s")
    assert [getattr(message, "text", "") for message in served.model.requests[-1].messages][-3:] == [
        "say red",
        "red",
        "say blue",
    ]


# ------------------------------------------------------- 3.5. Task Update Delivery Mechanisms


async def test_3_5_2_all_streams_of_a_task_tell_the_same_in_the_same_order(
    served: Served, transport: str
) -> None:
    sender = speak(served, WORDS, transport)
    first = sender.events("SendStreamingMessage", said("wait g\nstream 9 abcdefghi"))
    task = (await anext(first))["task"]["id"]
    others = [speak(served, WORDS, each).events("SubscribeToTask", {"id": task}) for each in TRANSPORTS]
    leaves = sender.events("SubscribeToTask", {"id": task})
    for stream in (*others, leaves):
        assert (await anext(stream))["task"]["id"] == task
    await leaves.aclose()
    served.model.gate("g").opened.set()
    rests = [[_untimed(event) for event in await told(stream)] for stream in (first, *others)]
    assert all(rest == rests[0] for rest in rests)
    pieces = [each["artifactUpdate"]["artifact"]["parts"][0]["text"] for each in rests[0][:-1]]
    assert "".join(pieces) == "abcdefghi"


def _untimed(event: Json) -> Json:
    for update in event.values():
        update.get("status", {}).pop("timestamp", None)
    return event


# ----------------------------------------------------------------------------- 3.6. Versioning


async def test_3_6_patch_numbers_do_not_count(a2a: Transport) -> None:
    task = await ask(a2a, "say x")
    # Without one 0.3 is meant (section 3.6.2) where the name of a method does not tell.
    for version in ("1.0", "1.0.0", "1.0.9", *([] if a2a.name == "HTTP+JSON" else ["-"])):
        assert (await a2a("GetTask", {"id": task["id"]}, a2a_version=version))["id"] == task["id"]


async def test_3_6_2_other_versions_are_refused(a2a: Transport) -> None:
    for version in ("0.2", "0.4", "1.1", "2.0", "10", "1.0-dev"):
        refused = await refusal(a2a("GetTask", {"id": "none"}, a2a_version=version))
        assert (refused.reason, refused.domain) == ("VERSION_NOT_SUPPORTED", "a2a-protocol.org")


@pytest.mark.parametrize("version", ["-", ""])
async def test_3_6_2_none_means_0_3(served: Served, version: str) -> None:
    a2a = speak(served, WORDS, "HTTP+JSON")
    task = await a_task(a2a, "TASK_STATE_CANCELED")
    headers = {} if version == "-" else {"a2a-version": version}
    answer = await served.http.get(f"/v1/agents/a/tasks/{task['id']}", headers=headers)
    assert answer.json()["status"]["state"] == "TASK_STATE_CANCELLED", "as 0.3 spells it"


# ----------------------------------------------------------------------- 4. Protocol Data Model

PARTS: Mapping[str, Json] = {
    "text": {"text": "hi"},
    "text with metadata": {"text": "hi", "metadata": {"a": 1}},
    "raw": {"raw": "aGk=", "filename": "a.txt", "mediaType": "text/plain"},
    "url": {"url": "https://example.com/a.png", "filename": "a.png", "mediaType": "image/png"},
    "data": {"data": {"a": [1, None, {"b": "c"}]}, "mediaType": "application/json"},
    "data that is a list": {"data": [1, "a", []]},
    "data that is a text": {"data": "x"},
    "data that is a number": {"data": 1.5},
    "data that is null": {"data": None},
}


async def test_4_1_6_parts_of_each_kind_are_kept_as_they_are(a2a: Transport) -> None:
    parts: list[Any] = [{"text": "say x"}, *PARTS.values()]
    task = await ask(a2a, "", parts=parts)
    found = await a2a("GetTask", {"id": task["id"], "historyLength": 2})
    assert found["history"][0]["parts"] == parts


@pytest.mark.parametrize(
    ("order", "part"),
    [
        ("say x", {"text": "x"}),
        ('data {"a": [1]}', {"data": {"a": [1]}}),
        ("file a.txt text/plain hi", {"raw": "aGk=", "filename": "a.txt", "mediaType": "text/plain"}),
        (
            "file a.png image/png https://example.com/a.png",
            {"url": "https://example.com/a.png", "filename": "a.png", "mediaType": "image/png"},
        ),
    ],
)
async def test_4_1_7_an_artifact_has_parts_of_each_kind(a2a: Transport, order: str, part: Json) -> None:
    (artifact,) = (await ask(a2a, order))["artifacts"]
    assert artifact["artifactId"]
    assert [{**each, "mediaType": part.get("mediaType")} for each in artifact["parts"]] == [
        {**part, "mediaType": part.get("mediaType")}
    ]
    events = await told(a2a.events("SendStreamingMessage", said(order)))
    update = events[-2]["artifactUpdate"]
    assert (update["lastChunk"], "artifactId" in update["artifact"]) == (True, True)


@pytest.mark.parametrize("early", [True, False])
async def test_4_3_3_a_webhook_is_sent_what_a_stream_is(a2a: Transport, served: Served, early: bool) -> None:
    async with Receiver() as hook:
        config = {"url": hook.url, "token": "tok", "authentication": CONFIG["authentication"]}
        wishes: Json = {"returnImmediately": True}
        if early:
            wishes["taskPushNotificationConfig"] = config
        task = await ask(a2a, "wait g\nsay x", configuration=wishes)
        if not early:
            await a2a("CreateTaskPushNotificationConfig", config | {"taskId": task["id"]})
        served.model.gate("g").opened.set()
        got = await hook.until_true(lambda got: bool(got) and "statusUpdate" in got[-1].json)
    for each in got:
        assert each.method == "POST"
        assert each.headers["content-type"] == "application/a2a+json"
        assert each.headers["authorization"] == "Bearer secret"
        assert each.headers["x-a2a-notification-token"] == "tok"
        (kind,) = each.json
        assert WORDS.by_rest("SubscribeToTask", each.json)
        assert each.json[kind].get("taskId", each.json[kind].get("id")) == task["id"]
    assert state_of(got[-1].json["statusUpdate"]) == "TASK_STATE_COMPLETED"


# ---------------------------------------------------- 5. Protocol Binding Requirements


async def test_5_1_the_transports_do_the_same(served: Served) -> None:
    """The same conversation over each, and each finds what another has done."""
    talks = [await _talk(served, transport) for transport in TRANSPORTS]
    assert talks[0] == talks[1] == talks[2]


@pytest.mark.parametrize("opening", ['{"x":', "["])
async def test_5_1_what_one_transport_takes_at_its_deepest_is_told_by_each(
    served: Served, opening: str
) -> None:
    """Protobuf's readers go less deep than those of JSON."""
    task, deep = await _deepest(served, opening)
    told = [await _history(served, transport, task) for transport in TRANSPORTS]
    assert told[0] == told[1] == told[2]
    assert told[0][0]["parts"][0]["data"] == deep


async def _deepest(served: Served, opening: str) -> tuple[Json, Any]:
    """That is taken."""
    rest = speak(served, WORDS, "HTTP+JSON")
    for levels in range(50, 20, -1):
        deep = json.loads(opening * levels + "1" + {"[": "]"}.get(opening, "}") * levels)
        with contextlib.suppress(Refusal):
            return await ask(rest, "say taken", parts=[{"data": deep}], metadata={"x": deep}), deep
    raise AssertionError("less than anybody would expect")


async def _history(served: Served, transport: str, task: Json) -> Any:
    a2a = speak(served, WORDS, transport)
    found = await a2a("GetTask", {"id": task["id"], "historyLength": 5})
    if transport == "GRPC":  # where a list's tasks stand one deeper
        listed = await a2a("ListTasks", {"contextId": task["contextId"], "historyLength": 5})
        assert [each["history"] for each in listed["tasks"]] == [found["history"]]
    return found["history"]


async def test_5_1_a_number_that_only_one_transport_can_tell_is_not_taken(served: Served) -> None:
    rest = speak(served, WORDS, "HTTP+JSON")
    largest = sys.float_info.max
    task = await ask(rest, "say taken", parts=[{"data": largest}])
    told = [await _history(served, transport, task) for transport in TRANSPORTS]
    assert [history[0]["parts"][0]["data"] for history in told] == [largest] * 3
    for number in (10**400, -(10**400)):
        with pytest.raises(Refusal, match="number"):
            await ask(rest, "say taken", parts=[{"data": {"n": [number]}}])


async def _talk(served: Served, transport: str) -> list[Any]:
    a2a = speak(served, WORDS, transport)
    others = [speak(served, WORDS, each) for each in TRANSPORTS]
    found: list[Any] = []
    context = (await ask(a2a, "say one"))["contextId"]
    for text in ("stream 3 two", 'data {"n": 3}', "fail rate_limit", "call ask"):
        events = await told(a2a.events("SendStreamingMessage", said(text, contextId=context)))
        task = events[0]["task"]["id"]
        seen = [await each("GetTask", {"id": task, "historyLength": 5}) for each in others]
        assert seen[0] == seen[1] == seen[2]
        found += [*events, seen[0]]
    names: dict[str, str] = {}
    return [_nameless(each, names) for each in found]


def _nameless(value: Any, names: dict[str, str]) -> Any:
    """With the ids by the order in which they come, and without times."""
    if isinstance(value, dict):
        return {
            name: _nameless(each, names)
            for name, each in value.items()
            if name not in {"timestamp", "artifactId", "messageId"}
        }
    if isinstance(value, list):
        return [_nameless(each, names) for each in value]
    if isinstance(value, str) and re.fullmatch(r"[0-9a-zA-Z-]{20,}", value):
        return names.setdefault(value, f"id {len(names)}")
    return value


BINDINGS = [
    (rule.WhichOneof("pattern").upper(), getattr(rule, rule.WhichOneof("pattern")), method.name)
    for method in SERVICE.methods
    for first in [method.GetOptions().Extensions[annotations_pb2.http]]
    for rule in (first, *first.additional_bindings)
]
"""The annotations of a2a.proto."""


async def test_5_3_each_path_of_the_definitions_is_served(served: Served) -> None:
    """And section 11.3."""
    task = (await ask(speak(served, WORDS, "HTTP+JSON"), "say x"))["id"]
    refusals = {
        "CancelTask": "TASK_NOT_CANCELABLE",
        "SubscribeToTask": "UNSUPPORTED_OPERATION",
        "GetExtendedAgentCard": "UNSUPPORTED_OPERATION",
        "GetTaskPushNotificationConfig": "TASK_NOT_FOUND",
    }
    for method, template, operation in BINDINGS:
        named = template.replace("{tenant}", "a")
        place = re.sub(r"\{\w+=\*\}", task, named)
        base = "/v1/agents/a" if named == template else ""
        body = (
            said("say y")
            if "SendMessageRequest" in SERVICE.methods_by_name[operation].input_type.name
            else {}
        )
        answer = await served.http.request(
            method,
            f"{base}{place}",
            json={"url": CONFIG["url"]} | body if method == "POST" else None,
            headers={"a2a-version": "1.0"},
        )
        refused = answer.json()["error"]["details"][0]["reason"] if answer.status_code != 200 else None
        assert refused == refusals.get(operation), f"{method} {template}"


ERRORS: Mapping[str, tuple[int, str, int]] = {
    "TASK_NOT_FOUND": (-32001, "NOT_FOUND", 404),
    "TASK_NOT_CANCELABLE": (-32002, "FAILED_PRECONDITION", 400),
    "PUSH_NOTIFICATION_NOT_SUPPORTED": (-32003, "FAILED_PRECONDITION", 400),
    "UNSUPPORTED_OPERATION": (-32004, "FAILED_PRECONDITION", 400),
    "EXTENSION_SUPPORT_REQUIRED": (-32008, "FAILED_PRECONDITION", 400),
    "VERSION_NOT_SUPPORTED": (-32009, "FAILED_PRECONDITION", 400),
}
"""The rows of section 5.4 that Hector has, as JSON-RPC, gRPC and HTTP have them."""


async def test_5_4_each_error_has_its_code(serve: Serve, transport: str) -> None:
    """And sections 9.5, 10.6 and 11.6: with a message and with A2A's own word."""
    a2a = speak(await serve(push=None), WORDS, transport)
    must = Profile(extensions=(Extension("urn:must", required=True),))
    picky = speak(await serve(profile=must), WORDS, transport)
    task = (await ask(a2a, "say x"))["id"]
    refusals = {
        "TASK_NOT_FOUND": await refusal(a2a("GetTask", {"id": "none"})),
        "TASK_NOT_CANCELABLE": await refusal(a2a("CancelTask", {"id": task})),
        "PUSH_NOTIFICATION_NOT_SUPPORTED": await refusal(
            a2a("ListTaskPushNotificationConfigs", {"taskId": task})
        ),
        "UNSUPPORTED_OPERATION": await refusal(a2a.events("SubscribeToTask", {"id": task})),
        "EXTENSION_SUPPORT_REQUIRED": await refusal(picky("SendMessage", said("say x"))),
        "VERSION_NOT_SUPPORTED": await refusal(a2a("GetTask", {"id": task}, a2a_version="7.0")),
    }
    assert refusals.keys() == ERRORS.keys()
    for reason, refused in refusals.items():
        rpc, word, http = ERRORS[reason]
        assert refused.code == {"JSONRPC": rpc, "GRPC": word, "HTTP+JSON": http}[transport]
        assert (refused.reason, refused.domain) == (reason, "a2a-protocol.org")
        assert refused.message


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("GetTask", {"id": "t", "context_id": "c", "status": {"state": "TASK_STATE_WORKING"}}),
        ("GetTask", {"id": "t", "contextId": "c", "status": {"state": "working"}}),
        ("GetTask", {"id": "t", "contextId": "c", "status": {"state": 2}}),
        ("GetTask", {"id": "t", "contextId": "c", "status": {}}),
        ("GetTask", {"id": "t", "contextId": "c"}),
        ("GetTask", {"id": "t", "status": {"state": "TASK_STATE_WORKING"}, "kind": "task"}),
        (
            "GetTask",
            {"id": "t", "status": {"state": "TASK_STATE_WORKING", "timestamp": "2026-01-01T00:00:00+01:00"}},
        ),
    ],
)
def test_5_5_to_5_7_what_all_answers_are_held_against_sees_what_is_wrong(
    operation: str, answer: Json
) -> None:
    with pytest.raises(Exception, match=r".*"):
        WORDS.by_rest(operation, answer)


async def test_5_7_fields_that_nobody_knows_are_left_alone(served: Served) -> None:
    asked = said("say x", {"unheardOf": 1}, unheardOf={"a": 1}, parts=[{"text": "say x", "unheardOf": []}])
    for transport in ("HTTP+JSON", "JSONRPC"):
        a2a = speak(served, WORDS, transport)
        message = asked["message"] | {"messageId": transport}
        answer = await a2a("SendMessage", asked | {"message": message, "unheardOf": None})
        assert text_of(answer["task"]) == "x"
    _, request, _ = WORDS.call("SendMessage", said("say x"))
    unheard_of = b"\xfa\x3f\x03abc"  # the field 1023, three bytes
    call: Any = served.channel.unary_unary(
        f"/{WORDS.service}/SendMessage", response_deserializer=a2a_pb2.SendMessageResponse.FromString
    )
    named = (("agent-name", "a"),)
    assert (await call(request.SerializeToString() + unheard_of, metadata=named)).task.id


# ------------------------------------------------- 8. Agent Discovery: The Agent Card


async def test_8_3_1_each_interface_of_a_card_is_there(served: Served) -> None:
    """In 1.0's words; test_0_3 has the others."""
    card = (await served.http.get("/v1/agents/a/.well-known/agent-card.json")).json()
    ours = [each for each in card["supportedInterfaces"] if each["protocolVersion"] == "1.0"]
    assert [each["protocolBinding"] for each in ours] == list(TRANSPORTS)
    for each in ours:
        if each["protocolBinding"] == "GRPC":
            assert each["url"] == served.server.grpc_address
            assert each["tenant"] == "a"
        else:
            assert each["url"] == f"{served.server.url}/v1/agents/a"
        assert await ask(speak(served, WORDS, each["protocolBinding"]), "say x")


# ------------------------------------------- 9 to 11. JSON-RPC, gRPC, HTTP+JSON/REST


async def test_9_3_an_answer_has_the_id_of_its_call(served: Served) -> None:
    for call_id in ("x", "", 0, -7, 2**53, None):
        call = {"jsonrpc": "2.0", "id": call_id, "method": "GetTask", "params": {"id": "none"}}
        answer = await served.http.post("/v1/agents/a", json=call)
        assert answer.json()["id"] == call_id
        assert answer.headers["content-type"] == "application/json"


async def test_11_1_who_speaks_a2as_media_type_is_answered_in_it(served: Served) -> None:
    named = {"content-type": "application/a2a+json", "a2a-version": "1.0"}
    answer = await served.http.post("/v1/agents/a/message:send", json=said("say x"), headers=named)
    assert answer.headers["content-type"] == "application/a2a+json"
    missing = await served.http.get(
        "/v1/agents/a/tasks/none", headers={"accept": "application/a2a+json", "a2a-version": "1.0"}
    )
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/a2a+json")
    assert missing.json()["error"]["code"] == 404
    assert missing.json()["error"]["status"] == "NOT_FOUND"


# ------------------------------------------------------------- 13. Security Considerations


async def test_13_1_what_is_anothers_is_not_there(serve: Serve, transport: str) -> None:
    """Nothing tells what is another's from what is not, whatever is asked."""
    a2a = speak(await serve(auth=tokens()), WORDS, transport)
    alice, bob = (f"Bearer {token}" for token in (ALICE, BOB))
    asked = said("call ask", contextId="s")
    task = (await a2a("SendMessage", asked, authorization=alice))["task"]["id"]
    await a2a("CreateTaskPushNotificationConfig", CONFIG | {"taskId": task}, authorization=alice)
    for operation, params in UNKNOWN.items():
        told_of = []
        for each in (task, "f" * len(task)):
            refused = await refused_by(a2a, operation, _of_task(params, each), authorization=bob)
            told_of.append((refused.code, refused.reason, refused.message.replace(each, "ID")))
        assert told_of[0] == told_of[1]
        assert told_of[0][1] == "TASK_NOT_FOUND"
    await a2a("GetTaskPushNotificationConfig", {"taskId": task, "id": "c"}, authorization=alice)


def _of_task(params: Json, task: str) -> Json:
    if "message" in params:
        return said("say x", taskId=task)
    return {name: task if value == "none" else value for name, value in params.items()}


async def test_13_1_a_context_is_its_users_own(serve: Serve, transport: str) -> None:
    served = await serve(auth=tokens())
    a2a = speak(served, WORDS, transport)
    await a2a("SendMessage", said("say my secret", contextId="s"), authorization=f"Bearer {ALICE}")
    await a2a("SendMessage", said("say x", contextId="s"), authorization=f"Bearer {BOB}")
    assert "secret" not in str(served.model.requests[-1].messages)
    await asyncio.gather(
        *(
            a2a("SendMessage", said("say y", messageId="the same"), authorization=f"Bearer {each}")
            for each in (ALICE, BOB)
        )
    )
    assert len(served.model.requests) == 4
