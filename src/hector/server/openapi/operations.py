"""What each route takes and answers, by its method and its path below an agent's URL or the server's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hector.domain.turns import TurnState
from hector.server.a2a.listing import LONGEST_HISTORY

JSON, A2A_JSON, EVENTS = "application/json", "application/a2a+json", "text/event-stream"

_TASKS = ("v1.Task", "v0_3_proto.Task")


@dataclass(frozen=True, slots=True)
class Answer:
    description: str
    schemas: Sequence[str] = ()
    """The names of what it may be; without any there is no body."""
    types: Sequence[str] = (JSON, A2A_JSON)
    streamed: Sequence[str] = ()
    """What the data of an event may be."""
    headers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    body: Sequence[str] = ()
    query: Sequence[str] = ()
    headers: Sequence[str] = ("A2A-Version",)
    public: bool = False
    """No token is asked for."""


def _integer(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "A2A-Version": {
        "in": "header",
        "description": "the version that the caller speaks; also as a query parameter",
        "schema": {"type": "string", "pattern": r"^(1\.0|0\.3)(\.[0-9]+)?$", "examples": ["1.0", "0.3"]},
    },
    "A2A-Extensions": {
        "in": "header",
        "description": "URIs of extensions, with commas between them; 0.3: X-A2A-Extensions",
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "in": "header",
        "description": "a message id, where the body has none",
        "schema": {"type": "string", "maxLength": 191},
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "the last event that the caller has, after which the stream goes on",
        "schema": {"type": "string"},
    },
    "If-None-Match": {"in": "header", "schema": {"type": "string"}},
    "If-Modified-Since": {"in": "header", "schema": {"type": "string"}},
    "historyLength": {
        "in": "query",
        "description": "how many of the task's newest messages are wanted",
        "schema": _integer(0, LONGEST_HISTORY),
    },
    "contextId": {"in": "query", "description": "a session", "schema": {"type": "string"}},
    "status": {
        "in": "query",
        "description": "the state of the tasks",
        "schema": {"type": "string", "enum": [f"TASK_STATE_{state.name}" for state in TurnState]},
    },
    "pageSize": {"in": "query", "description": "50 where it is left out", "schema": _integer(1, 100)},
    "pageToken": {
        "in": "query",
        "description": "`nextPageToken` of the page before",
        "schema": {"type": "string"},
    },
    "statusTimestampAfter": {
        "in": "query",
        "description": "tasks that came into their states then or later",
        "schema": {"type": "string", "format": "date-time"},
    },
    "includeArtifacts": {
        "in": "query",
        "description": "whether the tasks are told with their replies",
        "schema": {"type": "boolean"},
    },
    "tenant": {"in": "query", "description": "an agent", "schema": {"type": "string"}},
    "name": {"in": "query", "description": "an agent", "schema": {"type": "string"}},
    "user": {
        "in": "query",
        "description": "whose; for admins",
        "schema": {"type": "string", "maxLength": 255},
    },
    "cursor": {"in": "query", "description": "`nextCursor` of the page before", "schema": {"type": "string"}},
    "sessionLimit": {"name": "limit", "in": "query", "schema": _integer(1, 200)},
    "messageLimit": {"name": "limit", "in": "query", "schema": _integer(1, 1000)},
    "before": {
        "in": "query",
        "description": "`before` of the page after",
        "schema": _integer(1, 2**53),
    },
}
"""By the names that operations call them by; the name in the request is the same unless it says another."""

HEADERS: Mapping[str, Mapping[str, Any]] = {
    "A2A-Extensions": {"description": "those that are activated", "schema": {"type": "string"}},
    "Cache-Control": {"schema": {"type": "string"}},
    "ETag": {"schema": {"type": "string"}},
    "Last-Modified": {"schema": {"type": "string"}},
}

_KEEPING = ("Cache-Control", "ETag", "Last-Modified")
_A2A_HEADERS = ("A2A-Version", "A2A-Extensions")
_SENDING = (*_A2A_HEADERS, "Idempotency-Key")
_SEND = ("v1.SendMessageRequest", "v0_3_proto.SendMessageRequest", "SendMessage")
_STREAM = Answer(
    "what the task tells: first the task, last its end",
    types=(EVENTS,),
    streamed=("v1.StreamResponse", "v0_3_proto.StreamResponse"),
    headers=("A2A-Extensions",),
)
_TASK = Answer("the task as it stands", _TASKS, headers=("A2A-Extensions",))
_PUSH_CONFIGS = ("v1.TaskPushNotificationConfig", "v0_3_proto.TaskPushNotificationConfig")
_PUSH_CONFIG = Answer("the configuration", _PUSH_CONFIGS, headers=("A2A-Extensions",))
_ASKING = ("If-None-Match", "If-Modified-Since")
_SAME = Answer("nothing changed", headers=_KEEPING)


def _kept(description: str, *schemas: str) -> Mapping[int, Answer]:
    return {200: Answer(description, schemas, types=(JSON,), headers=_KEEPING), 304: _SAME}


A2A: Mapping[tuple[str, str], Operation] = {
    ("POST", "/message:send"): Operation(
        "sendMessage",
        "Messages",
        "Send a message, get the task at its end",
        {
            200: Answer(
                "the task",
                ("v1.SendMessageResponse", "v0_3_proto.SendMessageResponse", "SentMessage"),
                headers=("A2A-Extensions",),
            )
        },
        body=_SEND,
        headers=_SENDING,
    ),
    ("POST", "/message:stream"): Operation(
        "streamMessage",
        "Messages",
        "Send a message, get the answer as the model writes it",
        {200: _STREAM},
        body=_SEND,
        headers=(*_SENDING, "Last-Event-ID"),
    ),
    ("GET", "/tasks"): Operation(
        "listTasks",
        "Tasks",
        "A page of tasks, the last changed first",
        {
            200: Answer(
                "the page; for who does not name A2A 1.0 the newest tasks, without parameters",
                ("v1.ListTasksResponse", "TaskList"),
                headers=("A2A-Extensions",),
            )
        },
        query=(
            "contextId",
            "status",
            "pageSize",
            "pageToken",
            "historyLength",
            "statusTimestampAfter",
            "includeArtifacts",
        ),
        headers=_A2A_HEADERS,
    ),
    ("POST", "/tasks/{task}/pushNotificationConfigs"): Operation(
        "createPushConfig",
        "Push notifications",
        "Have a webhook told of a task",
        {200: _PUSH_CONFIG},
        body=(*_PUSH_CONFIGS, "v0_3_proto.CreateTaskPushNotificationConfigRequest"),
        headers=_A2A_HEADERS,
    ),
    ("GET", "/tasks/{task}/pushNotificationConfigs"): Operation(
        "listPushConfigs",
        "Push notifications",
        "The webhooks of a task",
        {
            200: Answer(
                "all of them",
                (
                    "v1.ListTaskPushNotificationConfigsResponse",
                    "v0_3_proto.ListTaskPushNotificationConfigResponse",
                ),
                headers=("A2A-Extensions",),
            )
        },
        headers=_A2A_HEADERS,
    ),
    ("GET", "/tasks/{task}/pushNotificationConfigs/{config}"): Operation(
        "getPushConfig",
        "Push notifications",
        "One webhook of a task",
        {200: _PUSH_CONFIG},
        headers=_A2A_HEADERS,
    ),
    ("DELETE", "/tasks/{task}/pushNotificationConfigs/{config}"): Operation(
        "deletePushConfig",
        "Push notifications",
        "Tell a webhook nothing more",
        {200: Answer("an empty object", ("Any",), headers=("A2A-Extensions",))},
        headers=_A2A_HEADERS,
    ),
    ("GET", "/tasks/{task}"): Operation(
        "getTask",
        "Tasks",
        "A task as it stands",
        {200: _TASK},
        query=("historyLength",),
        headers=_A2A_HEADERS,
    ),
    ("POST", "/tasks/{task}:cancel"): Operation(
        "cancelTask", "Tasks", "Cancel a task", {200: _TASK}, headers=_A2A_HEADERS
    ),
    ("GET", "/tasks/{task}:subscribe"): Operation(
        "subscribeToTask",
        "Tasks",
        "What a task tells, as a stream",
        {200: _STREAM},
        headers=(*_A2A_HEADERS, "Last-Event-ID"),
    ),
    ("POST", "/tasks/{task}:subscribe"): Operation(
        "resubscribeToTask",
        "Tasks",
        "What a task tells, as a stream",
        {200: _STREAM},
        headers=(*_A2A_HEADERS, "Last-Event-ID"),
    ),
    ("POST", ""): Operation(
        "call",
        "JSON-RPC",
        "A2A over JSON-RPC 2.0, the methods of both versions",
        {
            200: Answer(
                "the answer, or a stream of answers; errors, too",
                ("RpcAnswer",),
                types=(JSON, A2A_JSON, EVENTS),
                streamed=("RpcAnswer",),
                headers=("A2A-Extensions",),
            )
        },
        body=("RpcRequest",),
        headers=(*_SENDING, "Last-Event-ID"),
    ),
    ("GET", "/.well-known/agent-card.json"): Operation(
        "getAgentCard",
        "Agents",
        "An agent's card, in the words of both versions",
        _kept("the card", "v1.AgentCard"),
        headers=_ASKING,
        public=True,
    ),
    ("GET", "/extendedAgentCard"): Operation(
        "getExtendedAgentCard",
        "Agents",
        "The card for callers who signed in, of A2A 1.0",
        {200: Answer("the card", ("v1.AgentCard",), headers=_KEEPING), 304: _SAME},
        headers=("A2A-Version", *_ASKING),
    ),
    ("GET", "/card"): Operation(
        "getAuthenticatedExtendedCard",
        "Agents",
        "The card for callers who signed in, of A2A 0.3",
        {200: Answer("the card", ("v0_3.AgentCard",), headers=_KEEPING), 304: _SAME},
        headers=("A2A-Version", *_ASKING),
    ),
}
"""Below an agent's URL, and at the server's root for the default agent."""

_SESSION = "/agents/{agent}/sessions/{session}"

OWN: Mapping[tuple[str, str], Operation] = {
    ("GET", "/agents"): Operation(
        "listAgents", "Agents", "The agents and their URLs", {200: Answer("the agents", ("Agents",))}
    ),
    ("GET", "/agents/{agent}/sessions"): Operation(
        "listSessions",
        "Sessions",
        "Sessions, the last changed first",
        {200: Answer("a page", ("Sessions",))},
        query=("user", "sessionLimit", "cursor"),
    ),
    ("GET", _SESSION): Operation(
        "getSession",
        "Sessions",
        "A session and its newest messages",
        {200: Answer("the session", ("SessionMessages",))},
        query=("user", "messageLimit", "before"),
    ),
    ("DELETE", _SESSION): Operation(
        "deleteSession",
        "Sessions",
        "Delete a session and all that belongs to it",
        {204: Answer("it is gone")},
        query=("user",),
    ),
    ("GET", "/health"): Operation(
        "health",
        "Server",
        "Whether the process is up",
        {200: Answer("it is", ("Up",), types=(JSON,))},
        headers=(),
        public=True,
    ),
    ("GET", "/ready"): Operation(
        "ready",
        "Server",
        "Whether it can serve",
        {
            200: Answer("it can", ("Ready",), types=(JSON,)),
            503: Answer("not now, and why", ("NotReady",), types=(JSON,)),
        },
        headers=(),
        public=True,
    ),
    ("GET", "/openapi.json"): Operation(
        "openapi",
        "Server",
        "This document",
        _kept("an OpenAPI 3.1 document", "Any"),
        headers=_ASKING,
        public=True,
    ),
}
