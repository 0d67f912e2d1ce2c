"""The table from errors to statuses."""

from collections.abc import Iterator

import pytest
from a2a.client.transports.rest import _parse_rest_error

from hector.domain import errors
from hector.domain.errors import (
    BusyError,
    CallerError,
    ConflictError,
    ForbiddenError,
    HectorError,
    InvalidError,
    LeaseLostError,
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
from hector.server.statuses import (
    STATUSES,
    BodyTooLargeError,
    ExtensionRequiredError,
    MediaTypeError,
    MethodError,
    MethodNotFoundError,
    NoAgentNamedError,
    NoExtendedCardBeforeError,
    NoExtendedCardError,
    NoSuchPathError,
    NotARequestError,
    NotCancelableError,
    ParseError,
    PushNotSupportedError,
    TaskEndedError,
    VersionNotSupportedError,
    error_body,
    error_headers,
    status_of,
)

ERRORS: list[tuple[HectorError, int]] = [
    (InvalidError("f", "is bad"), 400),
    (TooLargeError("f", "is long"), 400),
    (BodyTooLargeError("body", "is long"), 413),
    (MediaTypeError("text/plain"), 415),
    (VersionNotSupportedError("9"), 400),
    (PushNotSupportedError("configuration.pushNotificationConfig"), 400),
    (NotFoundError("task", "t"), 404),
    (NotFoundError("session", "s"), 404),
    (NoSuchPathError(), 404),
    (NoAgentNamedError(["a", "b"]), 404),
    (MethodError("PUT", "GET"), 405),
    (UnauthenticatedError("who?"), 401),
    (ForbiddenError("no"), 403),
    (ConflictError("m"), 409),
    (BusyError("t"), 409),
    (WaitedTooLongError("t"), 409),
    (NotPausedError("t", "completed"), 400),
    (NotCancelableError("t", "completed"), 400),
    (TaskEndedError("t", "completed"), 400),
    (NoExtendedCardError(), 400),
    (NoExtendedCardBeforeError(), 400),
    (ExtensionRequiredError("a", ["urn:x"]), 400),
    (ParseError("body", "is not JSON"), 400),
    (NotARequestError("jsonrpc", 'wanted "2.0"'), 400),
    (MethodNotFoundError("no such method"), 404),
    (QueueFullError(3), 429),
    (StoreUnavailableError("later"), 503),
    (OutcomeUnknownError("perhaps"), 503),
    (LeaseLostError("t"), 503),
]
# A message of the 1.0 client holds what the server said only where it knows the reason.
_WITHOUT_A2A_REASON = (
    MethodError,
    UnauthenticatedError,
    ForbiddenError,
    BusyError,
    WaitedTooLongError,
    QueueFullError,
    StorageError,
)


@pytest.mark.parametrize(("error", "http"), ERRORS)
def test_each_error_has_its_status(error: HectorError, http: int) -> None:
    assert status_of(error).http == http
    body: object = error_body(error)["error"]
    assert isinstance(body, dict)
    assert body["message"] == str(error)
    assert body["code"] == STATUSES[_nearest(type(error))].code
    assert body.get("field") == (error.field if isinstance(error, CallerError) else None)


def test_no_error_of_a_caller_or_a_store_is_left_out() -> None:
    tried = {type(error) for error, _ in ERRORS}
    mapped = {cls for cls in STATUSES if cls not in {CallerError, StorageError}}
    assert mapped <= tried
    for cls in _subclasses(CallerError):
        assert cls in STATUSES, cls
    for cls in _subclasses(StorageError):
        assert _nearest(cls)


def test_retryable_errors_say_when() -> None:
    for error, http in ERRORS:
        assert ("retry-after" in error_headers(error)) is (http in {429, 503})


@pytest.mark.parametrize(("error", "http"), ERRORS)
def test_the_sdks_client_finds_our_words(error: HectorError, http: int) -> None:
    parsed = _parse_rest_error(error_body(error, numeric=True), "nothing")
    if isinstance(error, _WITHOUT_A2A_REASON) or (isinstance(error, NotFoundError) and error.kind != "task"):
        assert parsed is None
    else:
        assert str(error) in str(parsed)


@pytest.mark.parametrize(
    "defect", [ValueError("secret"), errors.ToolError("secret"), errors.ModelError("secret")]
)
def test_what_is_no_callers_business_is_an_internal_error(defect: Exception) -> None:
    assert status_of(defect).http == 500
    assert "secret" not in str(error_body(defect))


def _nearest(cls: type[HectorError]) -> type[HectorError]:
    return next(each for each in cls.__mro__ if each in STATUSES)


def _subclasses(cls: type[HectorError]) -> Iterator[type[HectorError]]:
    for each in cls.__subclasses__():
        if each.__module__.startswith("hector."):
            yield each
        yield from _subclasses(each)
