"""Working memory: what part of a session the model is sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hector.domain.messages import Message, StoredMessage


class TokenCounter(Protocol):
    """Counts as one model's tokenizer does, or estimates it."""

    def count(self, text: str) -> int: ...

    def cut(self, text: str, tokens: int) -> str:
        """The longest start of the text that has at most `tokens` tokens; never half a character."""
        ...


@dataclass(frozen=True, slots=True)
class TailLimit:
    """How much of a session's end is read, newest first: reading stops when either is reached."""

    messages: int
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Stands for the messages up to and including `through_seq`, which are kept."""

    through_seq: int
    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest messages of a session, oldest first, before the one that is to be answered."""

    messages: tuple[StoredMessage, ...] = ()
    summary: Summary | None = None
    """The latest; the messages are those after it."""


class WorkingMemory(Protocol):
    """A rule for what is sent; pure."""

    @property
    def limit(self) -> TailLimit:
        """What `select` must be given of a session."""
        ...

    def select(self, tail: Tail, own: Sequence[Message]) -> Sequence[Message]:
        """The messages to send, oldest first, ending with the turn's `own`, which are always whole.

        A tool call is never parted from its result. A turn that ended without an answer is its user's message
        and one marker line; what was superseded is nothing.
        """
        ...
