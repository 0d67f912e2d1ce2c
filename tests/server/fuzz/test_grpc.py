"""Both gRPC services are sent anything: whatever their definitions allow, and bytes."""

import itertools
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2
from a2a.types import a2a_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from tests.server.fuzz.bounds import LENGTHS, bounded
from tests.server.fuzz.target import SECRET, Target, check_details
from tests.server.site import BOB

METHODS = [
    method
    for definitions in (a2a_pb2, a2a_v0_3_pb2)
    for method in definitions.DESCRIPTOR.services_by_name["A2AService"].methods
]
NEVER = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_numbers = itertools.count()
_DEEPEST = 4


def messages(made: type[Message], ids: list[str], depth: int = 0) -> st.SearchStrategy[Message]:
    """Any that the definitions allow, what nobody meant included."""
    fields: Any = made.DESCRIPTOR.fields

    @st.composite
    def message(draw: st.DrawFn) -> Message:
        found = made()
        for field in fields:
            if not draw(st.booleans()):
                continue
            if field.message_type and field.message_type.GetOptions().map_entry:
                value = field.message_type.fields_by_name["value"]
                for key in draw(st.lists(texts(ids), max_size=2)):
                    if value.message_type:
                        getattr(found, field.name)[key].CopyFrom(draw(values(value, ids, depth)))
                    else:
                        getattr(found, field.name)[key] = draw(values(value, ids, depth))
            elif field.is_repeated:
                getattr(found, field.name).extend(draw(st.lists(values(field, ids, depth), max_size=2)))
            elif field.message_type:
                getattr(found, field.name).CopyFrom(draw(values(field, ids, depth)))
            else:
                setattr(found, field.name, draw(values(field, ids, depth)))
        return found

    return st.builds(made) if depth > _DEEPEST else message()


def texts(ids: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(
        ["", "a", "say x", "\x00", "x" * 3000, *ids, *(f"tasks/{each}" for each in ids)]
    ) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def values(field: Any, ids: list[str], depth: int) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return messages(GetMessageClass(field.message_type), ids, depth + 1)
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.sampled_from([*(each.number for each in field.enum_type.values), 77, -1])
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=8)
        case FieldDescriptor.CPPTYPE_STRING:
            return texts(ids)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats()
        case FieldDescriptor.CPPTYPE_INT32:
            return st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 12)
        case _:
            return st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 12)


def good(method: MethodDescriptor, target: Target) -> Message:
    """A request that is answered well, or nearly."""
    task, config = target.ids["task of bob"], target.ids["configuration of bob"]
    made = GetMessageClass(method.input_type)()
    fields = made.DESCRIPTOR.fields_by_name
    named: dict[str, Any] = {
        "tenant": "a",
        "id": config if "task_id" in fields else task,
        "task_id": task,
        "name": f"tasks/{task}" + (f"/pushNotificationConfigs/{config}" if "PushNot" in method.name else ""),
        "parent": f"tasks/{task}",
        "config_id": config,
        "url": "http://localhost:1/",
    }
    for name, value in named.items():
        if name in fields:
            setattr(made, name, value)
    said: Any = getattr(made, "message", None) or getattr(made, "request", None)
    if said is not None:
        said.message_id, said.context_id, said.role = f"m{next(_numbers)}", "fuzzed", 1
        (said.parts if hasattr(said, "parts") else said.content).add().text = "say x"
    if hasattr(made, "config"):
        made.config.push_notification_config.url = "http://localhost:1/"
    return made


def call(target: Target, method: MethodDescriptor, request: bytes) -> list[Message]:
    """What is answered; an error is looked at."""
    channel: Any = target.channel
    make: Callable[..., Any] = channel.unary_stream if method.server_streaming else channel.unary_unary
    asked = make(
        f"/{method.containing_service.full_name}/{method.name}",
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    metadata = (("authorization", f"Bearer {BOB}"), ("agent-name", "a"))
    try:
        answer = asked(request, metadata=metadata, timeout=10)
        found = list(answer) if method.server_streaming else [answer]
    except grpc.RpcError as error:
        check_error(error)
        found = []
    assert SECRET not in str(found)
    target.check_log()
    return found


def check_error(error: Any) -> None:
    assert error.code() not in NEVER, (error.code(), error.details())
    assert "Traceback" not in error.details()
    assert SECRET not in error.details()
    rich = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    details = []
    for each in rich.details:
        detail = getattr(error_details_pb2, each.type_url.rpartition(".")[2])()
        each.Unpack(detail)
        details.append({"@type": each.type_url, **MessageToDict(detail)})
    check_details(details, error.code(), grpc.StatusCode.INVALID_ARGUMENT)


def is_done_once(target: Target, method: MethodDescriptor, request: Message) -> None:
    said: Any = getattr(request, "message", None) or getattr(request, "request", None)
    if method.name == "SendMessage" and said.message_id and said.context_id:
        last = target.model.requests[-1]
        assert call(target, method, request.SerializeToString())
        assert target.model.requests[-1] is last


def test_good_requests_are_good(target: Target) -> None:
    """So that what is laid over them is what is wrong."""
    refused = {"CancelTask", "SubscribeToTask"}
    for method in METHODS:
        answered = call(target, method, good(method, target).SerializeToString())
        assert bool(answered) == (method.name not in refused), method.full_name


@LENGTHS
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_any_request(target: Target, method: MethodDescriptor, long: bool) -> None:
    """By itself, and laid over a good one."""
    made = GetMessageClass(method.input_type)
    ids = sorted(target.ids.values())

    @bounded(40 if "SendMessage" in method.input_type.name else 20, long=long)
    @given(messages(made, ids), st.booleans())
    def tried(request: Message, alone: bool) -> None:
        if not alone:
            request, over = good(method, target), request
            request.MergeFrom(over)
        if call(target, method, request.SerializeToString()):
            is_done_once(target, method, request)

    tried()
    target.check_alive()
    target.check_told()


@LENGTHS
def test_any_bytes(target: Target, long: bool) -> None:
    @bounded(60, long=long)
    @given(st.sampled_from(METHODS), st.binary(max_size=40), st.booleans(), st.integers(0, 60))
    def tried(method: MethodDescriptor, noise: bytes, alone: bool, at: int) -> None:
        begun = b"" if alone else good(method, target).SerializeToString()
        call(target, method, begun[:at] + noise + begun[at:])

    tried()
    target.check_alive()
