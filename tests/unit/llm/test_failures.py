"""That nothing of pydantic-ai, openai and httpx2 gets out, and that everything becomes the right error."""

import inspect
from collections.abc import Iterator

import httpx2
import openai
import pytest
from pydantic_ai import exceptions
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelOverloadedError,
    ModelQuotaExceededError,
    ModelRequestRejectedError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
)

from hector.domain.errors import (
    ContextTooLongError,
    ModelAuthError,
    ModelError,
    ModelRateLimitError,
    ModelRequestError,
    ModelUnreachableError,
)
from hector.llm.failures import pause_before_retry, translated

SECRET = "sk-secret and what the user said"


def translate(error: BaseException) -> ModelError:
    with pytest.raises(ModelError) as raised, translated("gpt-4o"):
        raise error
    assert raised.value.__cause__ is error
    return raised.value


def http(
    status: int, *, code: str | None = None, kind: str | None = None, body: object = None
) -> ModelHTTPError:
    return ModelHTTPError(status, "gpt-4o", body, provider_error_code=code, provider_error_type=kind)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModelAuthenticationError("m", SECRET), ModelAuthError),
        (ModelQuotaExceededError("m", SECRET), ModelAuthError),
        (exceptions.ModelRateLimitError("m", SECRET), ModelRateLimitError),
        (http(429), ModelRateLimitError),
        (ModelContextWindowExceededError("m", SECRET), ContextTooLongError),
        (http(400, kind="exceed_context_size_error"), ContextTooLongError),
        (
            http(400, body={"message": "This model's maximum context length is 8192 tokens."}),
            ContextTooLongError,
        ),
        (http(400, body={"message": "the request exceeds the available context size"}), ContextTooLongError),
        (http(413, body={"message": "Prompt is too long: 9 tokens > 8 maximum"}), ContextTooLongError),
        (
            http(422, body="`inputs` tokens + `max_new_tokens` must be <= 8; input tokens exceed"),
            ContextTooLongError,
        ),
        (http(500, body={"message": "no context window here"}), ModelUnreachableError),
        (ModelNotFoundError("m", SECRET), ModelRequestError),
        (ModelRequestRejectedError("m", SECRET), ModelRequestError),
        (http(400), ModelRequestError),
        (http(404), ModelRequestError),
        (http(409), ModelRequestError),
        (http(422), ModelRequestError),
        (http(408), ModelUnreachableError),
        (http(500), ModelUnreachableError),
        (http(529), ModelUnreachableError),
        (ModelOverloadedError("m", SECRET), ModelUnreachableError),
        (ModelUnavailableError("m", SECRET), ModelUnreachableError),
        (ModelServerError("m", SECRET), ModelUnreachableError),
        (ModelConnectionError("m", SECRET), ModelUnreachableError),
        (ModelTimeoutError("m", SECRET), ModelUnreachableError),
        (exceptions.ModelRequestTimeout("m", 1.0), ModelUnreachableError),
        (ModelAPIError("m", SECRET), ModelUnreachableError),
        (exceptions.UnexpectedModelBehavior(SECRET), ModelUnreachableError),
        (exceptions.UserError(SECRET), ModelRequestError),
        (httpx2.ReadError(SECRET), ModelUnreachableError),
        (ConnectionResetError(SECRET), ModelUnreachableError),
        (UnicodeEncodeError("ascii", SECRET, 0, 1, SECRET), ModelRequestError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_each_failure_is_the_error_that_says_who_must_act(
    error: Exception, expected: type[ModelError]
) -> None:
    ours = translate(error)
    assert type(ours) is expected
    assert SECRET not in str(ours)


def classes_in(module: object, base: type[BaseException]) -> Iterator[type[BaseException]]:
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, base) and not issubclass(found, Warning):
            yield found


@pytest.mark.parametrize(
    "kind",
    [
        *classes_in(exceptions, Exception),
        *classes_in(openai, openai.OpenAIError),
        *classes_in(httpx2, Exception),
    ],
)
def test_no_exception_of_the_libraries_slips_through(kind: type[Exception]) -> None:
    # Not all of them can be made in one way, and how they were made does not count here.
    new = OSError.__new__ if issubclass(kind, OSError) else kind.__new__
    error = new(kind, "text", [ValueError()]) if issubclass(kind, ExceptionGroup) else new(kind)
    for name in ("retry_after", "provider_error_code", "provider_error_type", "body", "phase"):
        setattr(error, name, None)
    if issubclass(kind, ModelHTTPError):
        error.__dict__["status_code"] = 418
    assert isinstance(translate(error), ModelError)


@pytest.mark.parametrize("passing", [KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_failure_passes(passing: BaseException) -> None:
    with pytest.raises(type(passing)), translated("gpt-4o"):
        raise passing


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModelConnectionError("m", SECRET), "check the variable X, or try again later"),
        (httpx2.ReadError(SECRET), "check the variable X, or try again later"),
        (exceptions.UnexpectedModelBehavior(SECRET), "check the variable X"),
        (ModelNotFoundError("m", SECRET), "check the name, and the variable X"),
    ],
)
def test_what_may_lie_in_the_address_says_where_that_came_from(error: Exception, told: str) -> None:
    with pytest.raises(ModelError, match=f"; {told}$"), translated("gpt-4o", "the variable X"):
        raise error
    with (
        pytest.raises(ModelError, match=r"; check the n(etwork(, or try again later)?|ame)$"),
        translated("m"),
    ):
        raise error


def test_our_own_error_passes_as_it_is() -> None:
    ours = ModelRequestError("already said")
    with pytest.raises(ModelRequestError) as raised, translated("gpt-4o"):
        raise ours
    assert raised.value is ours


def test_the_text_says_what_was_found_and_what_to_do() -> None:
    refused = ModelHTTPError.for_category(
        ModelAuthenticationError, status_code=401, model_name="m", provider_error_code="invalid_api_key"
    )
    assert str(translate(refused)) == (
        "the provider of 'gpt-4o' refuses the API key (HTTP 401, invalid_api_key); check the key"
    )
    assert str(translate(http(400, code="Not a word but a whole text", kind="bad_thing"))) == (
        "the provider of 'gpt-4o' refuses the request (HTTP 400, bad_thing)"
    )


def limited(retry_after: float | None) -> ModelError:
    return translate(exceptions.ModelRateLimitError("m", "", retry_after=retry_after))


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (limited(None), 0.5),
        (limited(0.1), 0.5),
        (limited(2.0), 2.0),
        (limited(6.0), None),
        (translate(http(503)), 0.5),
        (translate(ModelServerError("m", "", retry_after=60)), None),
        (translate(ModelConnectionError("m", "", phase="read")), 0.5),
        (translate(ModelTimeoutError("m", "", phase="connect")), 0.5),
        (translate(ModelTimeoutError("m", "", phase="read")), None),
        (translate(ModelAuthenticationError("m", "")), None),
        (translate(http(400)), None),
        (translate(exceptions.UnexpectedModelBehavior("")), None),
    ],
)
def test_a_call_is_repeated_where_that_may_help_soon(error: ModelError, wait: float | None) -> None:
    assert pause_before_retry(error, 0.5) == wait
