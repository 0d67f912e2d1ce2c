"""A provider's failures as `ModelError`s. Heavy: imports pydantic-ai."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRequestRejectedError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
)
from pydantic_ai.exceptions import ModelRateLimitError as ProviderRateLimitError

from hector.domain.errors import (
    ContextTooLongError,
    ModelAuthError,
    ModelError,
    ModelRateLimitError,
    ModelRequestError,
    ModelUnreachableError,
)

LONGEST_WAIT = 5.0
"""Seconds; a provider that asks for more is not waited for, and the caller learns when to come back."""

# How providers say that a prompt is too long where no code does: llama.cpp, vLLM, Ollama, LM Studio, TGI.
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|prompt is too long|input is too long|too many (?:input )?tokens"
    r"|tokens.{0,40}exceed|exceed.{0,60}tokens",
    re.IGNORECASE | re.DOTALL,
)
_MAY_BE_TOO_LONG = (400, 413, 422)
_CODE = re.compile(r"[a-z_]{1,48}")


@contextmanager
def translated(name: str, base_url_from: str = "") -> Iterator[None]:
    """Raise what goes wrong in pydantic-ai, the provider's SDK and below it as a `ModelError`.

    The texts hold neither what the provider wrote (it repeats keys and prompts) nor its address, but where
    that was configured (`ModelChoice.base_url_from`).
    """
    try:
        yield
    except ModelError:
        raise
    except ModelAPIError as error:
        raise _api_error(error, name, base_url_from) from error
    except (httpx2.TransportError, OSError) as error:
        raise ModelUnreachableError(_lost(name, base_url_from)) from error
    except UnexpectedModelBehavior as error:
        raise ModelUnreachableError(
            f"the provider of {name!r} gave an answer that is not of its protocol;"
            f" check {base_url_from or 'the network'}"
        ) from error
    except Exception as error:
        # `Model` promises to raise nothing else, and a library of this size has errors that nobody listed.
        raise ModelRequestError(
            f"the request to {name!r} could not be made or its answer not be read ({type(error).__name__})"
        ) from error


def pause_before_retry(error: ModelError, pause: float) -> float | None:
    """Seconds to wait before asking again, at least `pause`; None if that would not help or take too long."""
    cause = error.__cause__
    if not error.retryable or not isinstance(cause, ModelAPIError):
        return None
    if isinstance(cause, ModelTimeoutError) and cause.phase not in ("connect", "pool"):
        # Silence has used up the time that this call was given.
        return None
    wait = max(pause, cause.retry_after or 0.0)
    return wait if wait <= LONGEST_WAIT else None


def _api_error(error: ModelAPIError, name: str, base_url_from: str) -> ModelError:
    status = error.status_code if isinstance(error, ModelHTTPError) else None
    said = _said(error, status)
    if isinstance(error, ModelContextWindowExceededError) or _says_too_long(error, status):
        return ContextTooLongError(
            f"the conversation is longer than the context window of {name!r}{said};"
            " give its agent a smaller memory.working budget, or start a new session"
        )
    if isinstance(error, ModelQuotaExceededError):
        return ModelAuthError(f"the account behind the key for {name!r} has no quota or credit left{said}")
    if isinstance(error, ProviderRateLimitError) or status == 429:
        when = f" in {error.retry_after:.0f} seconds" if error.retry_after is not None else " later"
        return ModelRateLimitError(
            f"the provider of {name!r} takes no more requests for now{said}; try again{when}",
            retry_after=error.retry_after,
        )
    if isinstance(error, ModelAuthenticationError):
        return ModelAuthError(f"the provider of {name!r} refuses the API key{said}; check the key")
    if isinstance(error, ModelNotFoundError):
        also = f", and {base_url_from}" if base_url_from else ""
        return ModelRequestError(f"its provider knows no model {name!r}{said}; check the name{also}")
    if isinstance(error, ModelTimeoutError) and error.phase == "connect":
        return ModelUnreachableError(_lost(name, base_url_from))
    if isinstance(error, ModelTimeoutError):
        return ModelUnreachableError(f"the provider of {name!r} did not answer in time; try again later")
    if isinstance(error, ModelConnectionError):
        return ModelUnreachableError(_lost(name, base_url_from))
    if isinstance(error, ModelRequestRejectedError) or (status in range(400, 500) and status != 408):
        return ModelRequestError(f"the provider of {name!r} refuses the request{said}")
    return ModelUnreachableError(f"the provider of {name!r} failed{said}; try again later")


def _lost(name: str, base_url_from: str) -> str:
    return (
        f"no connection to the provider of {name!r}, or it was lost;"
        f" check {base_url_from or 'the network'}, or try again later"
    )


def _said(error: ModelAPIError, status: int | None) -> str:
    """The status and the provider's code, which is a word of its documentation and never a text."""
    code = next(
        (
            code
            for code in (error.provider_error_code, error.provider_error_type)
            if code is not None and _CODE.fullmatch(code)
        ),
        None,
    )
    words = ([f"HTTP {status}"] if status is not None else []) + ([code] if code is not None else [])
    return f" ({', '.join(words)})" if words else ""


def _says_too_long(error: ModelAPIError, status: int | None) -> bool:
    if status not in _MAY_BE_TOO_LONG:
        return False
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    return error.provider_error_type == "exceed_context_size_error" or (
        isinstance(message, str) and _TOO_LONG.search(message) is not None
    )
