"""From what the operator wrote (`gpt-4o`, `openai:gpt-4o`, an entry of `llms`) to a provider and a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

Provider: TypeAlias = Literal["openai", "local", "scripted"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

OPENAI_URL = "https://api.openai.com/v1"

_HOST = "host in its entry under llms"
_BASE_URL = "OPENAI_BASE_URL"
_NOT_YET = ("anthropic", "google")
_PROVIDER_BY_NAME = (
    (re.compile(r"(?:chat)?gpt-|o\d+(?:-|$)|ft:(?:gpt-|o\d)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "google"),
)
_WHAT_WORKS = (
    "what works is 'openai:MODEL', an entry under llms with the host of a server that speaks the OpenAI API,"
    " and 'local' for the embedded model"
)


@dataclass(frozen=True, slots=True)
class LlmEntry:
    """The plain values of one entry of `llms`; None where the key is not there."""

    type: str | None = None
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    host: str | None = None
    """A URL, or a host with or without a port; `/v1` is added where there is no path."""
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    """Seconds of silence."""
    context_window: int | None = None
    """Tokens."""
    threads: int | None = None
    """Of the embedded model."""
    orders: Mapping[str, str] | None = None
    """Of `scripted`, by the start of a message's id."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """All that is needed to open a model."""

    provider: Provider
    model: str = ""
    """As the provider calls it; '' for the default of `local` and `scripted`."""
    api_key: str | None = field(default=None, repr=False)
    base_url: str = ""
    base_url_from: str = ""
    """Where an operator would correct it, in words; '' for the provider's own."""
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    context_window: int | None = None
    threads: int | None = None
    orders: Mapping[str, str] | None = field(default=None, hash=False)


class ResolveError(ValueError):
    """What was written names no usable model. `key` is the key of the entry at fault, '' for all of it."""

    def __init__(self, text: str, *, key: str = "") -> None:
        super().__init__(text)
        self.key = key


def resolve(written: str | LlmEntry, environ: Mapping[str, str]) -> ModelChoice:
    """Pure: looks at `environ` only. Raises `ResolveError`."""
    entry = LlmEntry(model=written) if isinstance(written, str) else written
    provider, model = _provider_and_model(entry)
    if provider == "openai":
        if not model:
            raise ResolveError("needs the name of a model, such as gpt-4o", key="model")
        base_url, base_url_from, api_key = _openai_access(entry, environ)
    else:
        base_url, base_url_from, api_key = "", "", None
    return ModelChoice(
        provider=provider,
        model=model,
        api_key=api_key,
        base_url=base_url,
        base_url_from=base_url_from,
        temperature=entry.temperature,
        max_tokens=entry.max_tokens,
        timeout=entry.timeout,
        context_window=entry.context_window,
        threads=entry.threads,
        orders=entry.orders,
    )


def _provider_and_model(entry: LlmEntry) -> tuple[Provider, str]:
    written = (entry.model or "").strip()
    if entry.type is not None:
        return _supported(entry.type.strip(), written, key="type"), written.removeprefix(f"{entry.type}:")
    if not written:
        raise ResolveError("needs a type or a model, such as 'gpt-4o'", key="model")
    prefix, colon, rest = written.partition(":")
    if prefix in PROVIDERS or (colon and prefix in _NOT_YET):
        return _supported(prefix, written, key="model"), rest.strip()
    if entry.host:
        # Whatever its name, a model behind a given host speaks the OpenAI API; `llama3.2:1b` is such a name.
        return "openai", written
    for pattern, provider in _PROVIDER_BY_NAME:
        if pattern.match(written):
            return _supported(provider, written, key="model"), written
    raise ResolveError(f"cannot tell whose model {written!r} is; {_WHAT_WORKS}", key="model")


def _supported(provider: str, written: str, *, key: str) -> Provider:
    for known in PROVIDERS:
        if provider == known:
            return known
    if provider in _NOT_YET:
        named = f"{written!r} is a model of {provider}, which" if written else repr(provider)
        raise ResolveError(f"{named} this release does not support; {_WHAT_WORKS}", key=key)
    raise ResolveError(f"no provider is named {provider!r} (known: {', '.join(PROVIDERS)})", key=key)


def _openai_access(entry: LlmEntry, environ: Mapping[str, str]) -> tuple[str, str, str | None]:
    """Base URL, what says so, key."""
    if entry.host:
        # A key from the environment is OpenAI's and is not for others to see.
        return _base_url(entry.host), _HOST, _checked_key(entry.api_key, "api_key")
    base_url, base_url_from = _base_url_of(environ)
    key = _checked_key(entry.api_key, "api_key") or _checked_key(
        environ.get("OPENAI_API_KEY"), "OPENAI_API_KEY"
    )
    if key is None:
        raise ResolveError(
            "needs an API key: set the environment variable OPENAI_API_KEY, or api_key in its entry under"
            " llms (or use 'local', the embedded model, which needs none)",
            key="api_key",
        )
    return base_url, base_url_from, key


def _checked_key(key: str | None, name: str) -> str | None:
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ResolveError(
            f"{name} holds a character that no key has, such as a space or a line break", key="api_key"
        )
    return key or None


def _base_url_of(environ: Mapping[str, str]) -> tuple[str, str]:
    """Nothing is guessed of a variable that other programs read too: it holds a whole URL."""
    url = environ.get(_BASE_URL, "").strip()
    if not url:
        return OPENAI_URL, ""
    if not _is_url(url) or any(character in url for character in "@?#"):
        # Not shown: a password or a key may stand in it.
        raise ResolveError(
            f"the environment variable {_BASE_URL} holds no URL like http://localhost:11434/v1"
            " (without user, password, ? and #); correct it, unset it, or give the llm a host",
            key="host",
        )
    return _with_path(url), f"the environment variable {_BASE_URL}"


def _base_url(host: str) -> str:
    url = host.strip()
    if "://" not in url:
        url = f"{'http' if _is_near(url) else 'https'}://{url}"
    if not _is_url(url):
        # Before an `@` stands a password.
        shown = repr(host) if "@" not in host else "host: what it holds"
        raise ResolveError(f"{shown} is no host or URL; write it like http://localhost:11434/v1", key="host")
    return _with_path(url)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        found = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return found and text.isascii() and text.isprintable() and " " not in text


def _with_path(url: str) -> str:
    url = url.rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


def _is_near(host: str) -> bool:
    """Whether it is this machine or a private address, where nobody has a certificate."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_private
    except ValueError:
        return name == "localhost" or name.endswith((".localhost", ".local", ".internal"))
