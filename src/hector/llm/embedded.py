"""The model that needs no key: a small one, run in a process of our own."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

from hector.domain.errors import GaveWayError, ModelRequestError, ModelUnavailableError, ModelUnreachableError
from hector.domain.models import ModelEvent, ModelRequest
from hector.llm.embedded_process import ModelProcess
from hector.llm.resolve import ModelChoice
from hector.llm.weights import require

MODEL_NAME = "qwen2.5-coder-0.5b-instruct"

DEFAULT_INSTRUCTIONS = (
    "You are a friendly chat assistant. Keep answers short. When the user shares a fact,"
    ' say "Got it" and repeat the fact. Use the conversation to answer questions.'
)
"""For an agent without a prompt of its own: so small a model recalls best what it has said itself."""

DEFAULT_CONTEXT = 8192
"""Tokens. The model could take four times as many, each for 12 KB of memory and 12 ms of reading."""

DEFAULT_MAX_ANSWER = 1024
"""Tokens. So small a model does not always find its end."""

_log = logging.getLogger(__name__)


class EmbeddedModel:
    """Answers one request at a time, in the order in which they came; those that yield give way to others.

    Its process starts at the first request or `warm_up`, and again at the next request after it died. It is
    offered no tools: told of any, so small a model answers worse and still calls none.
    """

    def __init__(
        self,
        *,
        file: Path | None = None,
        context: int = DEFAULT_CONTEXT,
        max_answer: int = DEFAULT_MAX_ANSWER,
        temperature: float = 0.0,
        threads: int = 1,
    ) -> None:
        """`file` is another chat model in GGUF format; without it, it is what `hector models pull` fetches.

        A temperature of 0 recalls best, and more threads than one are slower on small machines.
        """
        self._file = file
        self._context, self._max_answer = context, max_answer
        self._temperature, self._threads = temperature, threads
        self._turnstile = asyncio.Semaphore()
        self._urgent = 0
        """Requests under way that do not yield."""
        self._yielding: asyncio.Task[list[ModelEvent]] | None = None
        self._starting = asyncio.Lock()
        self._process: ModelProcess | None = None
        self._closed = False
        self._warned = False

    @property
    def name(self) -> str:
        return self._file.stem if self._file else MODEL_NAME

    @property
    def context_window(self) -> int | None:
        return self._context

    async def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        if request.tools and not self._warned:
            self._warned = True
            _log.warning("the embedded model is too small for tools and is offered none")
        if request.output_schema is not None:
            # Held to one, so small a model repeats itself until it is stopped.
            raise ModelRequestError("the embedded model answers in plain text")
        if request.yields:
            for event in await self._answered_unless_others_come(request):
                yield event
            return
        self._urgent += 1
        try:
            if self._yielding:
                self._yielding.cancel()
            async with aclosing(self._answered(request)) as events:
                async for event in events:
                    yield event
        finally:
            self._urgent -= 1

    async def _answered_unless_others_come(self, request: ModelRequest) -> list[ModelEvent]:
        async def collected() -> list[ModelEvent]:
            async with aclosing(self._answered(request)) as events:
                return [event async for event in events]

        while self._yielding:
            await asyncio.wait((self._yielding,))
        if self._urgent:
            raise GaveWayError("others wait for the embedded model")
        answering = self._yielding = asyncio.create_task(collected())
        try:
            await asyncio.wait((answering,))
        finally:
            # Who asked may leave, too.
            answering.cancel()
            self._yielding = None
        if answering.cancelled():
            raise GaveWayError("another came for the embedded model")
        return answering.result()

    async def _answered(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        async with self._turnstile:
            process = await self._running()
            try:
                async with aclosing(process.model.respond(replace(request, tools=()))) as events:
                    async for event in events:
                        yield event
            except ModelUnreachableError as error:
                # Dead, or as good as dead: the next request is to find a new one.
                await process.stop()
                raise ModelUnavailableError(f"the embedded model stopped{process.last_words}") from error

    async def warm_up(self) -> None:
        with suppress(ModelUnavailableError):
            await self._running()

    async def close(self) -> None:
        self._closed = True
        if self._process is not None:
            await self._process.stop()

    async def _running(self) -> ModelProcess:
        async with self._starting:
            if self._process is not None and self._process.alive:
                return self._process
            file = await asyncio.to_thread(self._locate)
            self._process = await ModelProcess.spawn(
                file,
                name=self.name,
                context=self._context,
                max_answer=self._max_answer,
                temperature=self._temperature,
                threads=self._threads,
            )
            # `close` may have come at any of the steps before and found no process to stop.
            if self._closed:
                await self._process.stop()
                raise ModelUnavailableError("the embedded model was closed")
            await self._process.ready()
            return self._process

    def _locate(self) -> Path:
        if self._file is None:
            return require()
        if not self._file.is_file():
            raise ModelUnavailableError(f"there is no model file {str(self._file)!r}")
        return self._file


def embedded_model(choice: ModelChoice) -> EmbeddedModel:
    """The model that `local` names, or `local:PATH` with a file of one's own."""
    return EmbeddedModel(
        file=Path(choice.model).expanduser() if choice.model not in ("", MODEL_NAME) else None,
        context=choice.context_window or DEFAULT_CONTEXT,
        max_answer=choice.max_tokens or DEFAULT_MAX_ANSWER,
        temperature=choice.temperature or 0.0,
        threads=choice.threads or 1,
    )
