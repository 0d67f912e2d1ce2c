"""JSON schemas of what is Hector's own: agents, sessions, errors, and JSON-RPC's envelope."""

from collections.abc import Mapping
from typing import Any

from hector.server.a2a.methods import METHODS_OF_0_3, STREAMING, UNARY
from hector.server.openapi.derived import V03_JSON, V03_PROTO, V1, reference
from hector.server.statuses import INTERNAL, STATUSES

_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}
_ANY = {"type": "object"}


def _maybe(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}


def _object(properties: Mapping[str, Any], *optional: str) -> dict[str, Any]:
    """Of which all fields are there but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


_STATUSES = [*STATUSES.values(), INTERNAL]
_SESSION = {
    "agent": _TEXT,
    "user": {"type": "string", "description": "empty where nobody is signed in"},
    "id": _TEXT,
    "messageCount": _COUNT,
    "waiting": {**_COUNT, "description": "messages that wait for their turn"},
    "runningTaskId": _maybe("string"),
    "createdAt": _TIME,
    "updatedAt": _TIME,
}
_TOOL_CALL = _object({"id": _TEXT, "name": _TEXT, "arguments": _TEXT})
_TOOL_RESULT = _object({"id": _TEXT, "name": _TEXT, "text": _TEXT, "isError": {"type": "boolean"}})
_LISTED_FILE = _object(
    {"sha256": _TEXT, "size": _COUNT, "filename": _TEXT, "mediaType": _TEXT}, "filename", "mediaType"
)
_SPOKEN = {
    "role": {"enum": [1, "user", "ROLE_USER"]},
    "contextId": {"type": "string", "minLength": 1, "maxLength": 191, "description": "the session"},
    "messageId": {"type": "string", "maxLength": 191, "description": "sending it again is safe"},
    "taskId": {"type": "string", "description": "the paused task that this answers"},
    "content": {"type": "array", "items": _ANY, "minItems": 1},
    "parts": {"type": "array", "items": _ANY, "minItems": 1},
    "metadata": _ANY,
    "extensions": {"type": "array", "items": _TEXT},
}

SCHEMAS: Mapping[str, Any] = {
    "Error": _object(
        {
            "error": _object(
                {
                    "code": {
                        "description": "Hector's word; the HTTP status for callers that name A2A 1.0",
                        "enum": sorted({each.code for each in _STATUSES})
                        + sorted({each.http for each in _STATUSES}),
                    },
                    "status": {"enum": sorted({each.grpc for each in _STATUSES})},
                    "message": _TEXT,
                    "field": {"type": "string", "description": "what is at fault in the request"},
                    "details": {"type": "array", "items": _object({"@type": _TEXT})},
                },
                "field",
            )
        }
    ),
    "SendMessage": {
        **_object(
            {
                "message": {
                    "type": "object",
                    "properties": _SPOKEN,
                    "oneOf": [{"required": ["content"]}, {"required": ["parts"]}],
                },
                "configuration": _object(
                    {"blocking": {"type": "boolean"}, "historyLength": _COUNT}, "blocking", "historyLength"
                ),
            },
            "configuration",
        ),
        "description": "without a named version: parts of any dialect, fields in camelCase or snake_case",
    },
    "SentMessage": {
        **_object({"task": reference(f"{V03_JSON}.Task")}),
        "description": "for callers whose parts have a `kind`",
    },
    "TaskList": {
        "type": "array",
        "items": {
            "allOf": [reference(f"{V03_PROTO}.Task"), _object({"kind": {"const": "task"}})],
        },
        "description": "A2A 0.3's: at most 100 tasks",
    },
    "Agents": _object(
        {
            "agents": {
                "type": "array",
                "items": _object({"name": _TEXT, "title": _TEXT, "description": _TEXT, "url": _TEXT}),
            }
        }
    ),
    "Session": _object(_SESSION),
    "Sessions": _object(
        {"sessions": {"type": "array", "items": reference("Session")}, "nextCursor": _maybe("string")}
    ),
    "SessionMessages": _object(
        {
            **_SESSION,
            "messages": {"type": "array", "items": reference("SessionMessage")},
            "before": {**_maybe("integer"), "description": "asks for the page before; null on the first"},
        }
    ),
    "SessionMessage": _object(
        {
            "seq": _maybe("integer"),
            "role": {"enum": ["user", "agent", "tool"]},
            "taskId": _TEXT,
            "messageId": _TEXT,
            "notAnswered": {"type": "string", "description": "why its turn has no answer"},
            "parts": {
                "type": "array",
                "items": {
                    "anyOf": [
                        reference(f"{V1}.Part"),
                        _object({"toolCall": _TOOL_CALL}),
                        _object({"toolResult": _TOOL_RESULT}),
                        _LISTED_FILE,
                    ]
                },
            },
            "createdAt": {"type": ["string", "null"], "format": "date-time"},
        },
        "messageId",
        "notAnswered",
    ),
    "RpcRequest": _object(
        {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer", "null"]},
            "method": {"enum": sorted([*UNARY, *STREAMING, *METHODS_OF_0_3])},
            "params": {"type": "object", "description": "the method's; see A2A"},
        },
        "id",
        "params",
    ),
    "RpcAnswer": {
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer", "null"]},
            "result": _ANY,
            "error": _object({"code": {"type": "integer"}, "message": _TEXT, "data": {"type": "array"}}),
        },
        "required": ["jsonrpc", "id"],
        "oneOf": [{"required": ["result"]}, {"required": ["error"]}],
    },
    "Up": _object({"status": {"const": "up"}}),
    "Ready": _object({"status": {"const": "ready"}}),
    "NotReady": _object({"status": {"const": "not ready"}, "problems": {"type": "array", "items": _TEXT}}),
    "Any": _ANY,
}
