"""A2A 0.3 for `tests.server.contract.spoken`, in the words of its JSON-RPC, of which others are made."""

import base64
from collections.abc import Mapping
from typing import Any

from a2a.compat.v0_3 import a2a_v0_3_pb2, proto_utils, types
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pydantic import BaseModel, TypeAdapter

from tests.server.contract.spoken import Ask, Json, path

SERVICE = a2a_v0_3_pb2.DESCRIPTOR.services_by_name["A2AService"]
METHODS: Mapping[str, tuple[str, str, str]] = {
    "message/send": ("SendMessage", "POST", "v1/message:send"),
    "message/stream": ("SendStreamingMessage", "POST", "v1/message:stream"),
    "tasks/get": ("GetTask", "GET", "v1/tasks/{id}"),
    "tasks/cancel": ("CancelTask", "POST", "v1/tasks/{id}:cancel"),
    "tasks/resubscribe": ("TaskSubscription", "POST", "v1/tasks/{id}:subscribe"),
    "tasks/pushNotificationConfig/set": (
        "CreateTaskPushNotificationConfig",
        "POST",
        "v1/tasks/{taskId}/pushNotificationConfigs",
    ),
    "tasks/pushNotificationConfig/get": (
        "GetTaskPushNotificationConfig",
        "GET",
        "v1/tasks/{id}/pushNotificationConfigs/{pushNotificationConfigId}",
    ),
    "tasks/pushNotificationConfig/list": (
        "ListTaskPushNotificationConfig",
        "GET",
        "v1/tasks/{id}/pushNotificationConfigs",
    ),
    "tasks/pushNotificationConfig/delete": (
        "DeleteTaskPushNotificationConfig",
        "DELETE",
        "v1/tasks/{id}/pushNotificationConfigs/{pushNotificationConfigId}",
    ),
    "agent/getAuthenticatedExtendedCard": ("GetAgentCard", "GET", "v1/card"),
}
"""The table of section 3.5.6, with the names that the protobuf definitions have; lists of tasks apart."""

_RESULTS: Mapping[str, Any] = {
    "message/send": types.Task | types.Message,
    "message/stream": types.Task
    | types.Message
    | types.TaskStatusUpdateEvent
    | types.TaskArtifactUpdateEvent,
    "tasks/get": types.Task,
    "tasks/cancel": types.Task,
    "tasks/pushNotificationConfig/set": types.TaskPushNotificationConfig,
    "tasks/pushNotificationConfig/get": types.TaskPushNotificationConfig,
    "tasks/pushNotificationConfig/list": list[types.TaskPushNotificationConfig],
    "tasks/pushNotificationConfig/delete": None,
    "agent/getAuthenticatedExtendedCard": types.AgentCard,
}


class Words03:
    number = "-"
    """Its clients name none."""
    service = SERVICE.full_name

    def ask(self, operation: str, params: Json) -> Ask:
        _, method, template = METHODS[operation]
        rest = dict(params)
        place = path(template, rest)
        if operation in {"message/send", "message/stream"}:
            return Ask(method, place, body=_proto_params(rest))
        if operation == "tasks/pushNotificationConfig/set":
            return Ask(method, place, body={"config": rest})
        if method == "POST":
            return Ask(method, place, body={"name": f"tasks/{params['id']}"})
        return Ask(method, place, {name: str(value) for name, value in rest.items()})

    def call(self, operation: str, params: Json) -> tuple[str, Message, type[Message]]:
        name = METHODS[operation][0]
        method = SERVICE.methods_by_name[name]
        request = ParseDict(_proto_request(operation, params), GetMessageClass(method.input_type)())
        return name, request, GetMessageClass(method.output_type)

    def by_rest(self, operation: str, answer: Any) -> Any:
        if operation == "agent/getAuthenticatedExtendedCard":
            return self.by_rpc(operation, answer)
        method = SERVICE.methods_by_name[METHODS[operation][0]]
        return self.by_grpc(operation, ParseDict(answer, GetMessageClass(method.output_type)()))

    def by_rpc(self, operation: str, answer: Any) -> Any:
        """Strictly by the schema: no field that it has not, none left out that it requires."""
        operation = "message/stream" if operation == "tasks/resubscribe" else operation
        if operation == "agent/getAuthenticatedExtendedCard":
            # A scheme may also be read as protobuf has it, for one client reads the card so.
            for scheme in answer.get("securitySchemes", {}).values():
                scheme.pop("httpAuthSecurityScheme", None)
        found = TypeAdapter(_RESULTS[operation]).validate_python(answer)
        assert _dumped(found) == answer
        return answer

    def by_grpc(self, operation: str, answer: Message) -> Any:
        if operation == "agent/getAuthenticatedExtendedCard":
            assert isinstance(answer, a2a_v0_3_pb2.AgentCard)
            return _dumped(proto_utils.FromProto.agent_card(answer))
        return self.by_rpc(operation, _plain(operation, MessageToDict(answer)))


def _dumped(value: Any) -> Any:
    if isinstance(value, list):
        return [_dumped(each) for each in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return value


# ------------------------------------------------------------------------- into protobuf's words


def _proto_request(operation: str, params: Json) -> Json:
    match operation:
        case "message/send" | "message/stream":
            return _proto_params(params)
        case "tasks/get":
            history = {"historyLength": params["historyLength"]} if "historyLength" in params else {}
            return {"name": f"tasks/{params['id']}"} | history
        case "tasks/cancel" | "tasks/resubscribe":
            return {"name": f"tasks/{params['id']}"}
        case "tasks/pushNotificationConfig/set":
            config = params["pushNotificationConfig"]
            return {
                "parent": f"tasks/{params['taskId']}",
                "configId": config.get("id", ""),
                "config": {"pushNotificationConfig": config},
            }
        case "tasks/pushNotificationConfig/list":
            return {"parent": f"tasks/{params['id']}"}
        case "agent/getAuthenticatedExtendedCard":
            return {}
        case _:
            name = f"tasks/{params['id']}/pushNotificationConfigs/{params['pushNotificationConfigId']}"
            return {"name": name}


def _proto_params(params: Json) -> Json:
    made = dict(params)
    if "message" in made:
        made["message"] = _proto_message(made["message"])
    if wishes := made.get("configuration"):
        # What is unset is false there, and JSON-RPC's unset waits.
        wishes = {"blocking": True} | wishes
        if "pushNotificationConfig" in wishes:
            wishes["pushNotification"] = wishes.pop("pushNotificationConfig")
        made["configuration"] = wishes
    return made


def _proto_message(message: Json) -> Json:
    made = {name: value for name, value in message.items() if name not in {"kind", "parts", "role"}}
    if "role" in message:
        made["role"] = f"ROLE_{message['role'].upper()}"
    if "parts" in message:
        made["content"] = [_proto_part(each) for each in message["parts"]]
    return made


def _proto_part(part: Json) -> Json:
    made = {"metadata": part["metadata"]} if "metadata" in part else {}
    match part.get("kind"):
        case "text":
            return made | {"text": part["text"]}
        case "data":
            return made | {"data": {"data": part["data"]}}
        case "file":
            file = dict(part["file"])
            held = (
                {"fileWithBytes": file.pop("bytes")} if "bytes" in file else {"fileWithUri": file.pop("uri")}
            )
            return made | {"file": held | file}
        case _:
            return made


# -------------------------------------------------------------------------- and from them


def _plain(operation: str, answer: Json) -> Any:
    if operation == "tasks/pushNotificationConfig/list":
        return [_plain_config(each) for each in answer.get("configs", ())]
    if operation == "tasks/pushNotificationConfig/delete":
        assert not answer
        return None
    if "pushNotificationConfig" in operation:
        return _plain_config(answer)
    if operation in {"tasks/get", "tasks/cancel"}:
        return _plain_task(answer)
    (kind,) = answer
    held = answer[kind]
    match kind:
        case "task":
            return _plain_task(held)
        case "statusUpdate":
            final = {"final": held.get("final", False)}
            return held | {"kind": "status-update", "status": _plain_status(held["status"])} | final
        case "artifactUpdate":
            return held | {"kind": "artifact-update", "artifact": _plain_artifact(held["artifact"])}
        case _:
            raise AssertionError(f"an answer in {kind}")


def _plain_config(config: Json) -> Json:
    kind, task, _, name = config["name"].split("/")
    assert (kind, name) == ("tasks", config["pushNotificationConfig"]["id"])
    return {"taskId": task, "pushNotificationConfig": config["pushNotificationConfig"]}


def _plain_task(task: Json) -> Json:
    made = task | {"kind": "task", "status": _plain_status(task["status"])}
    if "artifacts" in task:
        made["artifacts"] = [_plain_artifact(each) for each in task["artifacts"]]
    if "history" in task:
        made["history"] = [_plain_message(each) for each in task["history"]]
    return made


def _plain_status(status: Json) -> Json:
    state = status["state"].removeprefix("TASK_STATE_").lower().replace("_", "-")
    made = status | {"state": "canceled" if state == "cancelled" else state}
    if "message" in status:
        made["message"] = _plain_message(status["message"])
    return made


def _plain_artifact(artifact: Json) -> Json:
    return artifact | {"parts": [_plain_part(each) for each in artifact["parts"]]}


def _plain_message(message: Json) -> Json:
    made = {name: value for name, value in message.items() if name != "content"}
    role = message["role"].removeprefix("ROLE_").lower()
    return made | {
        "kind": "message",
        "role": role,
        "parts": [_plain_part(each) for each in message["content"]],
    }


def _plain_part(part: Json) -> Json:
    made = {"metadata": part["metadata"]} if "metadata" in part else {}
    if "text" in part:
        return made | {"kind": "text", "text": part["text"]}
    if "data" in part:
        return made | {"kind": "data", "data": part["data"].get("data", {})}
    file = dict(part["file"])
    if "fileWithBytes" in file:
        held = {"bytes": file.pop("fileWithBytes")}
        base64.b64decode(held["bytes"], validate=True)
    else:
        held = {"uri": file.pop("fileWithUri")}
    return made | {"kind": "file", "file": held | file}
