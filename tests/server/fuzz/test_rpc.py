"""JSON-RPC is sent anything: bytes, JSON, and good calls of which one field is broken."""

import copy
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.fuzz.bounds import LENGTHS, bounded
from tests.server.fuzz.target import SECRET, URL, Target, check_details, events

CODES = frozenset({-32700, -32600, -32601, -32602, -32000, *range(-32009, -32000)})

_numbers = itertools.count()
_DEEP: Any = json.loads("[" * 150 + "]" * 150)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["", "a", "\x00", "\ud800", "x" * 5000, 2**63, -1, 1e308, "TASK_STATE_WORKING", "user"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


def good_calls(ids: Mapping[str, str]) -> list[Any]:
    """One of each method, with all that it may have."""
    task, config = ids["task of bob"], ids["configuration of bob"]
    parts = [{"text": "say x", "metadata": {"a": 1}}, {"data": {"b": [1]}}, {"url": "https://x.example/a"}]
    kinds = [
        {"kind": "text", "text": "say x"},
        {"kind": "data", "data": {"b": [1]}},
        {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "a.txt"}},
    ]
    hook = {"url": "http://localhost:1/", "token": "t"}
    common = {"contextId": "fuzzed", "metadata": {"c": None}, "extensions": ["urn:x"]}
    new = {
        "message": common
        | {"messageId": "new", "role": "ROLE_USER", "parts": parts, "referenceTaskIds": [task]},
        "configuration": {
            "acceptedOutputModes": ["text/plain"],
            "historyLength": 2,
            "returnImmediately": False,
            "taskPushNotificationConfig": hook | {"authentication": {"scheme": "Bearer", "credentials": "x"}},
        },
        "metadata": {"d": 1},
        "tenant": "a",
    }
    old = {
        "message": common | {"messageId": "old", "kind": "message", "role": "user", "parts": kinds},
        "configuration": {
            "acceptedOutputModes": ["text/plain"],
            "historyLength": 2,
            "blocking": True,
            "pushNotificationConfig": hook | {"authentication": {"schemes": ["Bearer"], "credentials": "x"}},
        },
    }
    listed = {
        "contextId": "c-bob",
        "status": "TASK_STATE_COMPLETED",
        "pageSize": 3,
        "historyLength": 1,
        "statusTimestampAfter": "2026-01-01T00:00:00Z",
        "includeArtifacts": True,
    }
    of_config = {"taskId": task, "id": config}
    before = {"id": task, "pushNotificationConfigId": task}  # as it is called that has no id
    calls: list[tuple[str, Any]] = [
        ("SendMessage", new),
        ("SendStreamingMessage", new),
        ("GetTask", {"id": task, "historyLength": 3}),
        ("ListTasks", listed),
        ("CancelTask", {"id": task, "metadata": {}}),
        ("SubscribeToTask", {"id": task}),
        ("CreateTaskPushNotificationConfig", hook | of_config),
        ("GetTaskPushNotificationConfig", of_config),
        ("ListTaskPushNotificationConfigs", {"taskId": task, "pageSize": 3}),
        ("DeleteTaskPushNotificationConfig", of_config),
        ("GetExtendedAgentCard", {}),
        ("message/send", old),
        ("message/stream", old),
        ("tasks/get", {"id": task, "historyLength": 3}),
        ("tasks/cancel", {"id": task}),
        ("tasks/resubscribe", {"id": task}),
        ("tasks/pushNotificationConfig/set", {"taskId": task, "pushNotificationConfig": hook}),
        ("tasks/pushNotificationConfig/get", before),
        ("tasks/pushNotificationConfig/list", {"id": task}),
        ("tasks/pushNotificationConfig/delete", before),
        ("agent/getAuthenticatedExtendedCard", {}),
    ]
    return [{"jsonrpc": "2.0", "id": 7, "method": name, "params": params} for name, params in calls]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from places(each, (*place, name))


@st.composite
def broken(draw: st.DrawFn, calls: list[Any], ids: Mapping[str, str]) -> Any:
    """One field is another, or gone, or somebody else's; or a field is there that is none."""
    call = copy.deepcopy(draw(st.sampled_from(calls)))
    if message := call["params"].get("message"):
        message["messageId"] = f"m{next(_numbers)}"
    *way, last = draw(st.sampled_from(list(places(call))))
    holder = call
    for step in way:
        holder = holder[step]
    others = st.sampled_from(sorted(ids.values()))
    match draw(st.sampled_from(["other", "other", "other", "gone", "theirs", "deep", "more"])):
        case "other":
            holder[last] = draw(anything)
        case "gone":
            del holder[last]
        case "theirs":
            holder[last] = draw(others)
        case "deep":
            holder[last] = _DEEP
        case _ if isinstance(holder, dict):
            holder[draw(st.sampled_from(["tenant", "kind", "taskId", "id"]) | st.text(max_size=5))] = draw(
                anything | others
            )
        case _:
            holder.append(draw(anything))
    return call


def send(target: Target, body: bytes) -> httpx.Response:
    return target.http.post(URL, content=body, headers={"content-type": "application/json"})


def check(target: Target, answer: httpx.Response, sent: Any = None) -> list[Any]:
    """The results."""
    target.check_answer(answer)
    streamed = answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer) if streamed else [answer.json()]
    for each in told:
        assert each["jsonrpc"] == "2.0"
        assert each.keys() - {"jsonrpc", "id"} in ({"result"}, {"error"})
        if isinstance(sent, dict) and (isinstance(sent.get("id"), int | str) and sent["id"] is not True):
            assert each["id"] in (sent["id"], None)
        if error := each.get("error"):
            assert error["code"] in CODES
            assert error["message"]
            check_details(error["data"], error["code"], -32602)
    return [each["result"] for each in told if "result" in each]


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_good_calls_are_good(target: Target) -> None:
    """So that what is broken of them is one thing."""
    refused = {"CancelTask": -32002, "tasks/cancel": -32002, "SubscribeToTask": -32004}
    for call in good_calls(target.ids):
        answer = send(target, encoded(call))
        error = (
            {} if answer.headers["content-type"].startswith("text/event") else answer.json().get("error", {})
        )
        assert error.get("code") == refused.get(call["method"]), answer.text
        if "message" in call["params"]:
            last = target.model.requests[-1]
            check(target, send(target, encoded(call)), call)
            assert target.model.requests[-1] is last


@LENGTHS
def test_any_bytes(target: Target, long: bool) -> None:
    fragments = st.sampled_from(
        [b"{", b"}", b'"jsonrpc":', b'"2.0"', b"[", b",", b"\xff", b"\x00", b"1e999", b"NaN"]
    )

    @bounded(60, long=long)
    @given(st.binary(max_size=60) | st.lists(fragments, max_size=12).map(b"".join))
    def tried(body: bytes) -> None:
        assert not check(target, send(target, body))

    tried()
    target.check_alive()


@LENGTHS
def test_any_json(target: Target, long: bool) -> None:
    names = st.sampled_from(["jsonrpc", "id", "method", "params", "x"])
    methods = st.sampled_from([call["method"] for call in good_calls(target.ids)])
    envelopes = st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "id": scalars, "method": methods, "params": anything}
    )

    @bounded(100, long=long)
    @given(anything | st.dictionaries(names, anything) | envelopes)
    def tried(value: Any) -> None:
        check(target, send(target, encoded(value)), value)

    tried()
    target.check_alive()


@LENGTHS
def test_good_calls_of_which_one_field_is_broken(target: Target, long: bool) -> None:
    calls = good_calls(target.ids)

    @bounded(300, long=long)
    @given(broken(calls, target.ids))
    def tried(call: Any) -> None:
        answers = check(target, send(target, encoded(call)), call)
        if answers and call["method"] in {"SendMessage", "message/send"}:
            is_done_once(target, call)

    tried()
    target.check_alive()
    target.check_told()


def is_done_once(target: Target, call: Any) -> None:
    """Where it names its message and its context, which tell that it is the same."""
    said = call["params"]["message"]
    if not (said.get("messageId") and said.get("contextId")):
        return
    last = target.model.requests[-1]
    (again,) = check(target, send(target, encoded(call)), call)
    assert target.model.requests[-1] is last
    assert again


def test_what_must_hold_is_seen_where_it_does_not(target: Target) -> None:
    def answer(status: int, body: Any) -> httpx.Response:
        return httpx.Response(status, json=body)

    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "X"}]
    error = {"code": -32602, "message": "x", "data": details}
    for wrong in (
        answer(500, {}),
        answer(200, {"jsonrpc": "2.0", "id": 1, "result": SECRET}),
        answer(200, {"jsonrpc": "2.0", "id": 1}),
        answer(200, {"jsonrpc": "2.0", "id": 1, "error": error}),
        answer(200, {"jsonrpc": "2.0", "id": 1, "error": error | {"code": -32603}}),
    ):
        with pytest.raises((AssertionError, ValueError)):
            check(target, wrong)
