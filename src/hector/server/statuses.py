"""Errors as HTTP tells them: one table from error class to status, and the one shape of an error's body."""

from collections.abc import Mapping
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
)
from hector.domain.messages import JsonValue

_A2A_DOMAIN = "a2a-protocol.org"
_OWN_DOMAIN = "hector"


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


class NoSuchPathError(CallerError):
    def __init__(self) -> None:
        super().__init__("nothing is served at this path; GET /v1/agents lists the agents and their URLs")


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
    retry_after: int | None = None
    """Seconds."""


_INTERNAL = Status(500, "internal", "INTERNAL")

STATUSES: Mapping[type[HectorError], Status] = {
    InvalidError: Status(400, "invalid", "INVALID_ARGUMENT", "INVALID_PARAMS"),
    TooLargeError: Status(400, "too_large", "INVALID_ARGUMENT", "INVALID_PARAMS"),
    BodyTooLargeError: Status(413, "too_large", "INVALID_ARGUMENT", "INVALID_REQUEST"),
    MediaTypeError: Status(415, "media_type", "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED"),
    VersionNotSupportedError: Status(
        400, "version_not_supported", "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED"
    ),
    PushNotSupportedError: Status(
        400, "push_not_supported", "FAILED_PRECONDITION", "PUSH_NOTIFICATION_NOT_SUPPORTED"
    ),
    NotFoundError: Status(404, "not_found", "NOT_FOUND"),
    NoSuchPathError: Status(404, "not_found", "NOT_FOUND", "METHOD_NOT_FOUND"),
    MethodError: Status(405, "method_not_allowed", "UNIMPLEMENTED"),
    UnauthenticatedError: Status(401, "unauthenticated", "UNAUTHENTICATED"),
    ForbiddenError: Status(403, "forbidden", "PERMISSION_DENIED"),
    ConflictError: Status(409, "conflict", "ALREADY_EXISTS", "INVALID_REQUEST"),
    BusyError: Status(409, "busy", "ABORTED"),
    NotPausedError: Status(400, "not_paused", "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION"),
    NotCancelableError: Status(400, "not_cancelable", "FAILED_PRECONDITION", "TASK_NOT_CANCELABLE"),
    QueueFullError: Status(429, "queue_full", "RESOURCE_EXHAUSTED", retry_after=1),
    CallerError: Status(400, "invalid", "INVALID_ARGUMENT", "INVALID_REQUEST"),
    StoreUnavailableError: Status(503, "unavailable", "UNAVAILABLE", retry_after=1),
    OutcomeUnknownError: Status(503, "outcome_unknown", "UNAVAILABLE", retry_after=1),
    StorageError: Status(503, "unavailable", "UNAVAILABLE", retry_after=1),
}
"""The nearest class counts; what is not here, and not below what is here, is our own defect."""


def status_of(error: Exception) -> Status:
    for cls in type(error).__mro__:
        if issubclass(cls, HectorError) and cls in STATUSES:
            return STATUSES[cls]
    return _INTERNAL


def error_body(error: Exception, *, numeric: bool = False) -> dict[str, JsonValue]:
    """google.rpc.Status as A2A 1.0 has it, with `field`.

    `code` is Hector's word; with `numeric`, for callers that named A2A 1.0, the HTTP status.
    """
    status = status_of(error)
    message = "internal error" if status is _INTERNAL else str(error)
    field = error.field if isinstance(error, CallerError) else None
    described: dict[str, JsonValue] = {
        "code": status.http if numeric else status.code,
        "status": status.grpc,
        "message": message,
    }
    if field:
        described["field"] = field
    described["details"] = _details(_reason(error, status), status, field, message)
    return {"error": described}


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


def _reason(error: Exception, status: Status) -> str:
    if isinstance(error, NotFoundError) and error.kind == "task":
        return "TASK_NOT_FOUND"
    return status.reason


def _details(reason: str, status: Status, field: str | None, message: str) -> list[JsonValue]:
    details: list[JsonValue] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason or status.code.upper(),
            "domain": _A2A_DOMAIN if reason else _OWN_DOMAIN,
            "metadata": {},
        }
    ]
    if field and status.grpc == "INVALID_ARGUMENT":
        details.append(
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": field, "description": message}],
            }
        )
    return details
