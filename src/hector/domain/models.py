"""What an agent asks, and how a model answers."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from hector.domain.events import TextDelta, ThinkingDelta
from hector.domain.messages import JsonValue, Message, ModelMessage, Usage
from hector.domain.tools import ToolSpec


@dataclass(frozen=True, slots=True)
class ModelRequest:
    instructions: str
    """The system prompt; may be empty."""
    messages: Sequence[Message]
    """Oldest first; the last is of the user or of a tool. Every tool call has its result right after it."""
    tools: Sequence[ToolSpec] = ()
    stream: bool = True
    """False where nobody listens: the model may then answer in one piece, which is cheaper."""
    message_id: str | None = None
    """The client's, of the user's newest message; no provider is told."""
    yields: bool = False
    """Nobody waits for the answer: a model that can answer one request alone may break it off for another,
    with `GaveWayError`."""
    longest: int | None = None
    """Tokens after which the answer may be stopped: of models that do not always find its end. Others, some
    of which would count their thinking, are not told."""
    output_schema: Mapping[str, JsonValue] | None = None
    """The JSON Schema of the object that is wanted for an answer. A model that cannot be held to it answers
    as it likes, or refuses."""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """The whole answer; what was streamed before it is contained in it."""

    message: ModelMessage
    usage: Usage = Usage()


ModelEvent: TypeAlias = TextDelta | ThinkingDelta | ModelReply


class Model(Protocol):
    """A chat model."""

    @property
    def name(self) -> str:
        """As its provider calls it: `gpt-4o`."""
        ...

    @property
    def context_window(self) -> int | None:
        """Tokens of a request and its answer together; None where it is not known."""
        ...

    def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Yield deltas as the model writes, if `stream`, and at the end one `ModelReply`.

        Closing the generator, or cancelling its task, stops the provider's call. Raises `ModelError` and
        nothing else.
        """
        ...

    async def warm_up(self) -> None:
        """Do what makes the first answer slow (imports, loading weights); errors wait for `respond`."""
        ...

    async def close(self) -> None: ...
