"""Any provider's chat model, through pydantic-ai; the library is imported when a model is first needed."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from hector.domain.errors import ModelError, ModelUnavailableError
from hector.domain.models import ModelEvent, ModelRequest
from hector.llm.connection import SILENCE, Connection
from hector.llm.resolve import ModelChoice

RETRY_PAUSES = (0.5, 2.0)
"""Seconds before the second and the third attempt at a call that failed before its first byte."""


class ProviderModel:
    """A `Model` over what `connect` makes.

    `connect` runs in a thread when the model is first needed, so it may import what it needs and may block;
    it may run a second time if the first caller was cancelled. A `ModelError` that it raises is the answer to
    that request, and the next request tries again. `base_url_from` is for the texts of errors.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        name: str,
        base_url_from: str = "",
        context_window: int | None = None,
        retry_pauses: Sequence[float] = RETRY_PAUSES,
        stops_answers: bool = False,
    ) -> None:
        """`stops_answers` where a request says how long they may be."""
        self._connect = connect
        self._name = name
        self._base_url_from = base_url_from
        self._context_window = context_window
        self._retry_pauses = tuple(retry_pauses)
        self._stops_answers = stops_answers
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_window(self) -> int | None:
        return self._context_window

    async def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        connection = await self._connected()
        # It imports pydantic-ai, which `_connected` has done in a thread.
        from hector.llm.exchange import exchange  # noqa: PLC0415

        answer = exchange(
            connection.model,
            request if self._stops_answers else replace(request, longest=None),
            name=self._name,
            base_url_from=self._base_url_from,
            retry_pauses=self._retry_pauses,
        )
        async with aclosing(answer):
            async for event in answer:
                yield event

    async def warm_up(self) -> None:
        try:
            await self._connected()
        except ModelError:
            return

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> Connection:
        if self._connection is None:
            async with self._connecting:
                if self._connection is None:
                    self._connection = await asyncio.to_thread(self._open)
        return self._connection

    def _open(self) -> Connection:
        try:
            import hector.llm.exchange  # noqa: F401, PLC0415 - takes most of a second

            return self._connect()
        except ImportError as error:
            raise ModelUnavailableError(
                f"model {self._name!r} needs a Python package that is not installed here ({error.name});"
                " install hector again"
            ) from error


def openai_model(choice: ModelChoice) -> ProviderModel:
    """A model of OpenAI, or of any server that speaks its chat completions."""

    def connect() -> Connection:
        from hector.llm.openai import connect_openai  # noqa: PLC0415 - imports pydantic-ai and openai

        return connect_openai(
            choice.model,
            base_url=choice.base_url,
            api_key=choice.api_key,
            silence=choice.timeout or SILENCE,
            temperature=choice.temperature,
            max_tokens=choice.max_tokens,
        )

    return ProviderModel(
        connect,
        name=choice.model,
        base_url_from=choice.base_url_from,
        context_window=choice.context_window,
    )
