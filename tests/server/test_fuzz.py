"""Whatever is sent to a server, over each transport: an answer, or an error that is the caller's."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import schemathesis
from a2a.compat.v0_3 import a2a_v0_3_pb2 as old
from a2a.types import a2a_pb2 as new
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hector.server.a2a.methods import METHODS_OF_0_3, STREAMING, UNARY

CONFIG = """
llms: {scripted: {type: scripted}}
agents: {a: {llm: scripted}}
server: {push: {allow: ["127.0.0.0/8"]}}
"""
HECTOR = Path(sys.executable).with_name("hector")
OURS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]

bounded = settings(
    # The same each time, for whoever makes a change; what takes longer finds more.
    derandomize=True,
    deadline=None,
    max_examples=60,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True, slots=True)
class Site:
    http: str
    grpc: str
    client: httpx.Client

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Any status but 5xx."""
        url, headers = self.http + path, {"content-type": "application/json", **headers}
        answer = self.client.post(url, content=body, headers=headers, timeout=20)
        assert answer.status_code < 500, answer.text
        return answer

    def answers(self) -> None:
        """A good message still gets its answer."""
        part = {"message": {"messageId": "sane", "role": "ROLE_USER", "parts": [{"text": "Hello"}]}}
        answer = httpx.post(f"{self.http}/message:send", json=part, headers={"A2A-Version": "1.0"})
        assert answer.json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED", answer.text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "config.yaml").write_text(CONFIG)
    command = [str(HECTOR), "serve", "--port=0", "--config", str(folder / "config.yaml")]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder) as server,
        httpx.Client() as client,
    ):
        assert server.stdout
        words = server.stdout.readline().split()
        site = Site(words[1], words[3], client)
        try:
            yield site
            site.answers()
        finally:
            server.terminate()
            status = server.wait()
    said = (folder / "log").read_text()
    assert (status, "ERROR" in said, "Traceback" in said) == (0, False, False), said


# What is forbidden takes schemathesis long to think of.
@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, pytest.param(GenerationMode.NEGATIVE, marks=pytest.mark.long)]
)
def test_requests_that_the_document_allows_or_forbids(site: Site, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"{site.http}/openapi.json")
    tried = []
    for found in document.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        # What is at the root is what the default agent has below its name.
        if operation.path.startswith(("/v1/agents", "/health", "/ready", "/openapi.json")):
            tried.append(operation.label)
            _try_all(operation, mode)
    assert len(tried) > 20


def _try_all(operation: Any, mode: GenerationMode) -> None:
    @settings(bounded, max_examples=3)
    @given(operation.as_strategy(mode))
    def try_one(case: Any) -> None:
        answer = case.call(timeout=20)
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=CHECKS)

    with suppress(Unsatisfiable):  # of some nothing is forbidden
        try_one()


# --- JSON

texts = st.text(max_size=20) | st.sampled_from(
    ["a", "s", "m", "ROLE_USER", "user", "tasks/x", "é\ud800", "\0"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
GOOD: Mapping[str, Any] = {
    "message": {
        "messageId": "m",
        "contextId": "s",
        "role": "ROLE_USER",
        "parts": [{"text": "Hello"}, {"data": {"x": 1}, "metadata": {"y": [1]}}],
        "metadata": {"z": None},
        "extensions": ["https://example.com/x"],
        "referenceTaskIds": ["t"],
    },
    "configuration": {
        "acceptedOutputModes": ["text/plain"],
        "historyLength": 1,
        "returnImmediately": False,
        "taskPushNotificationConfig": {"id": "p", "url": "http://127.0.0.1:9/", "token": "t"},
    },
    "metadata": {},
    "tenant": "a",
    "id": "t",
    "taskId": "t",
    "pageSize": 1,
    "pageToken": "x",
    "status": "TASK_STATE_WORKING",
}


@st.composite
def nearly_good(draw: st.DrawFn) -> Any:
    """Good, but for one place or two."""
    made = json.loads(json.dumps(GOOD))
    # Sent again under its id, with other content, it would be refused before anybody looks at that.
    made["message"]["messageId"] = draw(st.uuids().map(str))
    for _ in range(draw(st.integers(0, 2))):
        place: Any = made
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.booleans()):
                place = place[key]
                continue
            if draw(st.booleans()):
                place[key] = draw(values)
            else:
                del place[key]
            break
    return made


METHODS = st.sampled_from(sorted([*UNARY, *STREAMING, *METHODS_OF_0_3])) | texts
VERSIONS = st.sampled_from([{}, {"A2A-Version": "1.0"}, {"A2A-Version": "0.3"}])


@bounded
@given(
    st.fixed_dictionaries(
        {
            "jsonrpc": st.just("2.0") | values,
            "id": st.integers() | values,
            "method": METHODS,
            "params": nearly_good() | values,
        }
    )
    | values,
    VERSIONS,
)
def test_calls_of_json_rpc(site: Site, call: Any, version: Mapping[str, str]) -> None:
    answer = site.post("/v1/agents/a", json.dumps(call).encode(), version)
    if answer.headers["content-type"].startswith("text/event-stream"):
        told = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    else:
        told = [answer.json()] if answer.content else []
    for each in told:
        assert each["jsonrpc"] == "2.0"
        assert ("result" in each) != ("error" in each)
        assert each.get("error", {}).get("code") != -32603, each


@bounded
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()), VERSIONS)
def test_bodies_that_are_anything(site: Site, body: bytes, version: Mapping[str, str]) -> None:
    for path in ("/v1/agents/a", "/v1/agents/a/message:send", "/v1/agents/a/message:stream"):
        site.post(path, body, version)


@bounded
@given(nearly_good(), VERSIONS)
def test_messages_over_rest(site: Site, said: Any, version: Mapping[str, str]) -> None:
    body = json.dumps(said).encode()
    for path in ("/v1/agents/a/message:send", "/agents/a/v1/message:stream"):
        answer = site.post(path, body, version)
        if answer.status_code >= 400:
            assert answer.json()["error"]["message"]


# --- protobuf


def messages(descriptor: Descriptor, depth: int = 4) -> st.SearchStrategy[Message]:
    """Any that the descriptor allows."""
    made = GetMessageClass(descriptor)
    if descriptor.full_name in {
        "google.protobuf.Struct",
        "google.protobuf.Value",
        "google.protobuf.ListValue",
    }:
        plain = (
            st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
        )
        value: st.SearchStrategy[Any] = st.dictionaries(st.text(max_size=9), plain, max_size=2)
        if descriptor.name == "ListValue":
            value = st.lists(plain, max_size=2)
        return value.map(lambda told: ParseDict(told, made()))
    fields = {
        field.name: _values(field, depth)
        for field in descriptor.fields
        if depth or field.type != FieldDescriptor.TYPE_MESSAGE
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda told: made(**told))


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind and kind.GetOptions().map_entry:
        return st.dictionaries(st.text(max_size=9), _value(kind.fields_by_name["value"], depth), max_size=2)
    one = _value(field, depth)
    return st.lists(one, max_size=2) if field.is_repeated else one


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            kind: Any = field.message_type
            return messages(kind, depth - 1)
        case FieldDescriptor.TYPE_STRING:
            known = ["a", "s", "m", "tasks/t", "tasks/t/pushNotificationConfigs/p", "http://127.0.0.1:9/"]
            return st.sampled_from(known) | st.text(max_size=20)
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=20)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            return st.integers(-1, 12)
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return st.floats(allow_nan=False, allow_infinity=False, width=32)
        case FieldDescriptor.TYPE_INT64:
            return st.integers(-(2**63), 2**63 - 1)
        case _:
            return st.integers(-(2**31), 2**31 - 1)


SERVICES = [file.DESCRIPTOR.services_by_name["A2AService"] for file in (new, old)]
CALLS = [
    pytest.param(method, id=f"{service.full_name}.{method.name}")
    for service in SERVICES
    for method in service.methods
]


@pytest.mark.parametrize("method", CALLS)
@settings(bounded, max_examples=20)
@given(data=st.data())
def test_calls_of_grpc(site: Site, method: MethodDescriptor, data: st.DataObject) -> None:
    asked: Any = method.input_type
    message = data.draw(messages(asked))
    _call(site, method, message.SerializeToString())


@settings(bounded, max_examples=50)
@given(method=st.sampled_from([param.values[0] for param in CALLS]), told=st.binary(max_size=100))
def test_bytes_that_are_no_message(site: Site, method: Any, told: bytes) -> None:
    _call(site, method, told)


def _call(site: Site, method: MethodDescriptor, told: bytes) -> None:
    """Any bytes, as no stub would send them."""
    name = f"/{method.containing_service.full_name}/{method.name}"
    code, details = grpc.StatusCode.OK, ""
    with grpc.insecure_channel(site.grpc) as made:
        channel: Any = made
        try:
            if method.server_streaming:
                list(channel.unary_stream(name)(told, timeout=20))
            else:
                channel.unary_unary(name)(told, timeout=20)
        except grpc.RpcError as error:
            refused: Any = error
            code, details = refused.code(), refused.details()
    assert code not in OURS, details
