"""Learning from what providers report how many tokens a model takes for a text."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from hector.domain.messages import Message, Text, ToolCall, ToolResult
from hector.domain.models import Model, ModelEvent, ModelReply, ModelRequest
from hector.domain.tokens import MESSAGE_TOKENS
from hector.memory.tokens import LearntCounter

_LEAST, _MOST = 400, 60_000
"""Characters of a request that is counted for it: of less the provider's own additions would be learnt, and
more would hold up others."""
_EVERY = 32
"""After the first few, one of so many requests is counted."""


class LearningModel:
    """A model whose counter learns from some of its answers."""

    def __init__(self, model: Model, counter: LearntCounter) -> None:
        self._model, self._counter = model, counter
        self._asked = 0

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def context_window(self) -> int | None:
        return self._model.context_window

    async def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        async with aclosing(self._model.respond(request)) as events:
            async for event in events:
                if isinstance(event, ModelReply) and event.usage.input_tokens:
                    self._learn(request, event.usage.input_tokens)
                yield event

    async def warm_up(self) -> None:
        await self._model.warm_up()

    async def close(self) -> None:
        await self._model.close()

    def _learn(self, request: ModelRequest, reported: int) -> None:
        texts = _texts(request)
        if texts is None or not _LEAST <= sum(map(len, texts)) <= _MOST:
            return
        self._asked += 1
        if self._asked <= 3 or self._asked % _EVERY == 0:
            counted = sum(MESSAGE_TOKENS + self._counter.counter.count(text) for text in texts)
            self._counter.learn(counted, reported)


def _texts(request: ModelRequest) -> list[str] | None:
    """One for each message; None if there is something whose tokens are the provider's secret."""
    if request.tools or request.output_schema is not None:
        return None
    found = [request.instructions] if request.instructions else []
    for message in request.messages:
        text = _text(message)
        if text is None:
            return None
        found.append(text)
    return found


def _text(message: Message) -> str | None:
    texts: list[str] = []
    for part in message.parts:
        match part:
            case Text(text=text) | ToolResult(text=text):
                texts.append(text)
            case ToolCall(name=name, arguments=arguments):
                texts.append(name + arguments)
            case _:
                return None
    return "".join(texts)
