"""A2A 1.0 for `tests.server.contract.spoken`: its operations over each transport, and its data types."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from a2a.types import a2a_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.server.contract.spoken import Ask, Json, path

SERVICE = a2a_pb2.DESCRIPTOR.services_by_name["A2AService"]
REST: Mapping[str, tuple[str, str]] = {
    "SendMessage": ("POST", "message:send"),
    "SendStreamingMessage": ("POST", "message:stream"),
    "GetTask": ("GET", "tasks/{id}"),
    "ListTasks": ("GET", "tasks"),
    "CancelTask": ("POST", "tasks/{id}:cancel"),
    "SubscribeToTask": ("POST", "tasks/{id}:subscribe"),
    "CreateTaskPushNotificationConfig": ("POST", "tasks/{taskId}/pushNotificationConfigs"),
    "GetTaskPushNotificationConfig": ("GET", "tasks/{taskId}/pushNotificationConfigs/{id}"),
    "ListTaskPushNotificationConfigs": ("GET", "tasks/{taskId}/pushNotificationConfigs"),
    "DeleteTaskPushNotificationConfig": ("DELETE", "tasks/{taskId}/pushNotificationConfigs/{id}"),
    "GetExtendedAgentCard": ("GET", "extendedAgentCard"),
}
"""The table of section 5.3."""
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_MAY_BE_EMPTY = frozenset({"lf.a2a.v1.ListTasksResponse"})
"""Of an empty list, and its last page."""


class Words10:
    number = "1.0"
    service = SERVICE.full_name

    def ask(self, operation: str, params: Json) -> Ask:
        method, template = REST[operation]
        rest = dict(params)
        place = path(template, rest)
        if method == "POST":
            return Ask(method, place, body=rest)
        return Ask(method, place, {name: _in_query(value) for name, value in rest.items()})

    def call(self, operation: str, params: Json) -> tuple[str, Message, type[Message]]:
        method = SERVICE.methods_by_name[operation]
        request = ParseDict(params, GetMessageClass(method.input_type)(), ignore_unknown_fields=True)
        return operation, request, GetMessageClass(method.output_type)

    def by_rest(self, operation: str, answer: Json) -> Json:
        """Strictly by the definitions: no other field, no other spelling, nothing required left out."""
        made = ParseDict(answer, GetMessageClass(SERVICE.methods_by_name[operation].output_type)())
        check_required(made)
        timed = dict(_timestamps(answer))
        assert all(_TIMESTAMP.fullmatch(each) for each in timed.values()), "section 5.6.1"
        assert _untimed(MessageToDict(made)) == _untimed(answer), "section 5.5"
        return answer

    def by_rpc(self, operation: str, answer: Any) -> Json:
        if operation == "DeleteTaskPushNotificationConfig":
            # 1.0 has an empty message, and JSON-RPC's examples show none.
            assert not answer
            return {}
        return self.by_rest(operation, answer)

    def by_grpc(self, operation: str, answer: Message) -> Json:
        check_required(answer)
        return MessageToDict(answer)


def required(message: type[Message] | Message) -> list[FieldDescriptor]:
    """Section 5.7: the fields that the definitions mark so."""
    fields: Any = message.DESCRIPTOR.fields
    return [
        field
        for field in fields
        if field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    ]


def check_required(message: Message) -> None:
    if message.DESCRIPTOR.full_name not in _MAY_BE_EMPTY:
        for field in required(message):
            is_set = message.HasField(field.name) if field.has_presence else getattr(message, field.name)
            assert is_set, f"{field.full_name} is required"
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.full_name.startswith("google."):
            continue
        if field.message_type.GetOptions().map_entry:
            inner = [value[key] for key in value]
        else:
            inner = list(value) if field.is_repeated else [value]
        for each in inner:
            if isinstance(each, Message):
                check_required(each)


def _in_query(value: Any) -> str:
    """Section 11.5."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _timestamps(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "timestamp":
                yield place, each
            else:
                yield from _timestamps(each, f"{place}.{name}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _timestamps(each, f"{place}[{number}]")


def _untimed(value: Any) -> Any:
    """Protobuf leaves out a fraction of zeros."""
    if isinstance(value, dict):
        return {name: _untimed(each) for name, each in value.items() if name != "timestamp"}
    return [_untimed(each) for each in value] if isinstance(value, list) else value
