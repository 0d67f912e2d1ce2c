"""OpenAI's chat completions, and the servers that speak them. Heavy: imports pydantic-ai and openai."""

import httpx2
from openai import AsyncOpenAI
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.settings import ModelSettings

from hector.llm.connection import SILENCE, Connection

CONNECT_TIMEOUT = 10.0
"""Seconds to reach the server."""
NO_KEY = "none"
"""Sent where the server needs no key: the protocol has no place for the absence of one."""

# A stream that ends without one was cut off, and half an answer must not pass for a whole one.
_PROFILE = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)


def connect_openai(
    model: str,
    *,
    base_url: str,
    api_key: str | None = None,
    silence: float = SILENCE,
    temperature: float | None = None,
    max_tokens: int | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Connection:
    """`silence`: seconds without a byte after which a call is given up."""
    http = httpx2.AsyncClient(
        timeout=httpx2.Timeout(silence, connect=min(CONNECT_TIMEOUT, silence)),
        limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
        transport=transport,
    )
    client = AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or NO_KEY,
        http_client=http,
        timeout=http.timeout,
        # `exchange` repeats calls itself: the client would sleep for up to two minutes if a provider says so.
        max_retries=0,
    )
    host = httpx2.URL(base_url).host
    provider = (
        OpenAIProvider(openai_client=client)
        if host == "api.openai.com"
        else OpenAICompatibleProvider(host, openai_client=client)
    )
    settings = ModelSettings()
    if temperature is not None:
        settings["temperature"] = temperature
    if max_tokens is not None:
        settings["max_tokens"] = max_tokens
    return Connection(
        OpenAIChatModel(model, provider=provider, profile=_PROFILE, settings=settings), http.aclose
    )
