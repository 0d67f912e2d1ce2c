"""Errors as each transport tells them: one table from error class to status, and the shapes of a body."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hector.domain.errors import (
    BusyError,
    CallerError,
    ConflictError,
    ForbiddenError,
    HectorError,
    InvalidError,
    NotFoundError,
    NotPausedError,
    OutcomeUnknownError,
    QueueFullError,
    StorageError,
    StoreUnavailableError,
    TooLargeError,
    UnauthenticatedError,
    WaitedTooLongError,
)
from hector.domain.messages import JsonValue

_A2A_DOMAIN = "a2a-protocol.org"
_OWN_DOMAIN = "hector"
_OWN_RPC_CODE = -32000
"""What JSON-RPC leaves to servers, but for what A2A has taken of it."""


class BodyTooLargeError(TooLargeError):
    """More than `server.limits` lets in."""


class MediaTypeError(CallerError):
    def __init__(self, found: str) -> None:
        super().__init__(
            f"content-type {found!r} is not understood; send application/json or application/a2a+json",
            field="content-type",
        )


class VersionNotSupportedError(CallerError):
    def __init__(self, found: str) -> None:
        super().__init__(
            f"A2A version {found!r} is not spoken here; send A2A-Version: 1.0 or 0.3, or leave it out",
            field="A2A-Version",
        )


class PushNotSupportedError(CallerError):
    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field}: this server sends no push notifications; stream the answer or ask for the task",
            field=field,
        )


class NotCancelableError(CallerError):
    def __init__(self, turn_id: str, state: str) -> None:
        super().__init__(f"task {turn_id!r} is {state} and cannot be canceled any more", field="task")
        self.turn_id = turn_id


class TaskEndedError(CallerError):
    def __init__(self, turn_id: str, state: str) -> None:
        super().__init__(
            f"task {turn_id!r} is {state}, and nothing more will be told of it; get the task instead",
            field="task",
        )
        self.turn_id = turn_id


class ExtensionRequiredError(CallerError):
    def __init__(self, agent: str, missing: Iterable[str]) -> None:
        super().__init__(
            f"agent {agent!r} serves those only who know its extensions; ask for them in the header"
            f" A2A-Extensions: {', '.join(missing)}",
            field="A2A-Extensions",
        )


class NoExtendedCardError(CallerError):
    def __init__(self) -> None:
        super().__init__(
            "nobody signs in here, so there is no card beyond the public one (.well-known/agent-card.json)"
        )


class NoExtendedCardBeforeError(NoExtendedCardError):
    """In the words of A2A 0.3."""


class ParseError(InvalidError):
    """What came is not JSON."""


class NotARequestError(InvalidError):
    """JSON, but no request of JSON-RPC's."""


class MethodNotFoundError(CallerError):
    """Of JSON-RPC."""


class NoSuchPathError(CallerError):
    def __init__(self) -> None:
        super().__init__("nothing is served at this path; GET /v1/agents lists the agents and their URLs")


class NoAgentNamedError(NotFoundError):
    """A request to the server's own root, which says nothing of an agent."""

    def __init__(self, known: Iterable[str]) -> None:
        names = sorted(known)
        CallerError.__init__(
            self,
            f"no agent is named, and this server has no default one (agents: {', '.join(names)}); use"
            f" /v1/agents/{names[0]}, or set server.default_agent",
            field="agent",
        )
        self.kind, self.name, self.known = "agent", "", names


class MethodError(CallerError):
    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"method {method} is not served at this path (allowed: {allowed})")
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Status:
    http: int
    code: str
    """Hector's own word for the error, for programs."""
    grpc: str
    """The canonical word of gRPC, as google.rpc.Status has it."""
    reason: str = ""
    """A2A's own; '' where A2A has none."""
    rpc: int = _OWN_RPC_CODE
    """JSON-RPC's, or A2A's for it."""
    retry_after: int | None = None
    """Seconds."""


_TYPES = "type.googleapis.com/google.rpc."
INTERNAL = Status(500, "internal", "INTERNAL", rpc=-32603)
_OF_TASKS = frozenset({"task", "push notification configuration"})
"""A2A has one error for both."""
_NO_SUCH_TASK = Status(404, "not_found", "NOT_FOUND", "TASK_NOT_FOUND", rpc=-32001)

STATUSES: Mapping[type[HectorError], Status] = {
    InvalidError: Status(400, "invalid", "INVALID_ARGUMENT", "INVALID_PARAMS", rpc=-32602),
    TooLargeError: Status(400, "too_large", "INVALID_ARGUMENT", "INVALID_PARAMS", rpc=-32602),
    BodyTooLargeError: Status(413, "too_large", "INVALID_ARGUMENT", "INVALID_REQUEST", rpc=-32600),
    MediaTypeError: Status(415, "media_type", "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED", rpc=-32005),
    VersionNotSupportedError: Status(
        400, "version_not_supported", "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED", rpc=-32009
    ),
    PushNotSupportedError: Status(
        400, "push_not_supported", "FAILED_PRECONDITION", "PUSH_NOTIFICATION_NOT_SUPPORTED", rpc=-32003
    ),
    NotFoundError: Status(404, "not_found", "NOT_FOUND"),
    NoAgentNamedError: Status(404, "not_found", "NOT_FOUND"),
    NoSuchPathError: Status(404, "not_found", "NOT_FOUND", "METHOD_NOT_FOUND", rpc=-32601),
    MethodError: Status(405, "method_not_allowed", "UNIMPLEMENTED"),
    UnauthenticatedError: Status(401, "unauthenticated", "UNAUTHENTICATED"),
    ForbiddenError: Status(403, "forbidden", "PERMISSION_DENIED"),
    ConflictError: Status(409, "conflict", "ALREADY_EXISTS", "INVALID_REQUEST", rpc=-32600),
    BusyError: Status(409, "busy", "ABORTED"),
    WaitedTooLongError: Status(409, "max_wait", "ABORTED"),
    NotPausedError: Status(400, "not_paused", "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION", rpc=-32004),
    ParseError: Status(400, "invalid", "INVALID_ARGUMENT", "INVALID_REQUEST", rpc=-32700),
    NotARequestError: Status(400, "invalid", "INVALID_ARGUMENT", "INVALID_REQUEST", rpc=-32600),
    MethodNotFoundError: Status(404, "not_found", "NOT_FOUND", "METHOD_NOT_FOUND", rpc=-32601),
    ExtensionRequiredError: Status(
        400, "extension_required", "FAILED_PRECONDITION", "EXTENSION_SUPPORT_REQUIRED", rpc=-32008
    ),
    NoExtendedCardError: Status(
        400, "no_extended_card", "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION", rpc=-32004
    ),
    NoExtendedCardBeforeError: Status(
        400, "no_extended_card", "FAILED_PRECONDITION", "EXTENDED_AGENT_CARD_NOT_CONFIGURED", rpc=-32007
    ),
    TaskEndedError: Status(400, "task_ended", "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION", rpc=-32004),
    NotCancelableError: Status(
        400, "not_cancelable", "FAILED_PRECONDITION", "TASK_NOT_CANCELABLE", rpc=-32002
    ),
    QueueFullError: Status(429, "queue_full", "RESOURCE_EXHAUSTED", retry_after=1),
    CallerError: Status(400, "invalid", "INVALID_ARGUMENT", "INVALID_REQUEST", rpc=-32600),
    StoreUnavailableError: Status(503, "unavailable", "UNAVAILABLE", retry_after=1),
    OutcomeUnknownError: Status(503, "outcome_unknown", "UNAVAILABLE", retry_after=1),
    StorageError: Status(503, "unavailable", "UNAVAILABLE", retry_after=1),
}
"""The nearest class counts; what is not here, and not below what is here, is our own defect."""


def status_of(error: Exception) -> Status:
    if isinstance(error, NotFoundError) and error.kind in _OF_TASKS:
        return _NO_SUCH_TASK
    for cls in type(error).__mro__:
        if issubclass(cls, HectorError) and cls in STATUSES:
            return STATUSES[cls]
    return INTERNAL


def text_of(error: Exception) -> str:
    """What a caller is told; nothing of our own defects."""
    return "internal error" if status_of(error) is INTERNAL else str(error)


def error_body(error: Exception, *, numeric: bool = False) -> dict[str, JsonValue]:
    """google.rpc.Status as A2A 1.0 has it, with `field`.

    `code` is Hector's word; with `numeric`, for callers that named A2A 1.0, the HTTP status.
    """
    status = status_of(error)
    described: dict[str, JsonValue] = {
        "code": status.http if numeric else status.code,
        "status": status.grpc,
        "message": text_of(error),
    }
    if isinstance(error, CallerError) and error.field:
        described["field"] = error.field
    return {"error": described | {"details": _as_any(error_details(error))}}


def rpc_error(error: Exception) -> dict[str, JsonValue]:
    """The `error` of a JSON-RPC answer, as A2A 1.0 has it; 0.3 leaves `data` open."""
    return {"code": status_of(error).rpc, "message": text_of(error), "data": _as_any(error_details(error))}


def error_headers(error: Exception) -> dict[str, str]:
    status = status_of(error)
    headers = {"cache-control": "no-store"}
    if status.retry_after is not None:
        headers["retry-after"] = str(status.retry_after)
    if isinstance(error, UnauthenticatedError):
        headers["www-authenticate"] = 'Bearer realm="hector"'
    if isinstance(error, MethodError):
        headers["allow"] = error.allowed
    return headers


def error_details(error: Exception) -> dict[str, dict[str, JsonValue]]:
    """What google.rpc.Status has in `details`, by the names of google.rpc's types, as protobuf's JSON."""
    status = status_of(error)
    details: dict[str, dict[str, JsonValue]] = {
        "ErrorInfo": {
            "reason": status.reason or status.code.upper(),
            "domain": _A2A_DOMAIN if status.reason else _OWN_DOMAIN,
            "metadata": _about(error),
        }
    }
    field = error.field if isinstance(error, CallerError) else None
    if field and status.grpc == "INVALID_ARGUMENT":
        violation: JsonValue = {"field": field, "description": text_of(error)}
        details["BadRequest"] = {"fieldViolations": [violation]}
    if status.retry_after is not None:
        details["RetryInfo"] = {"retryDelay": f"{status.retry_after}s"}
    return details


def _as_any(details: Mapping[str, Mapping[str, JsonValue]]) -> list[JsonValue]:
    return [{"@type": f"{_TYPES}{name}", **value} for name, value in details.items()]


def _about(error: Exception) -> dict[str, JsonValue]:
    match error:
        case BusyError(turn_id=str(turn_id)) | NotPausedError(turn_id=turn_id):
            return {"taskId": turn_id}
        case WaitedTooLongError(turn_id=turn_id):
            return {"taskId": turn_id}
        case NotFoundError(kind="task", name=turn_id):
            return {"taskId": turn_id}
        case NotCancelableError(turn_id=turn_id) | TaskEndedError(turn_id=turn_id):
            return {"taskId": turn_id}
        case _:
            return {}
