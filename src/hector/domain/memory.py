"""Working memory: what part of a session the model is sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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


class Sent(NamedTuple):
    """A message as it is sent."""

    message: Message
    tokens: int
    seqs: tuple[int, ...] = ()
    """Of the stored message that it is, or is the start of; none for a summary."""
    cut: bool = False
    """Not all of it is sent."""


class Selection(NamedTuple):
    """What is sent before a turn's own messages, oldest first: the summary, then messages."""

    sent: Sequence[Sent]
    overflowed: bool = False
    """Something that no summary covers is cut, or left out."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """When the older messages of a session are summarised, and how much is left of it then. In tokens."""

    budget: int
    """The most that the summary and the messages after it may take of what is sent."""
    threshold: float
    """The share of the budget above which a summary is due."""
    target: float
    """The share of the budget that a summary and what is left behind it may take."""

    @property
    def due_above(self) -> int:
        return int(self.budget * self.threshold)

    @property
    def summary_limit(self) -> int:
        """Of a summary: half of what there is to be afterwards."""
        return max(1, int(self.budget * self.target) // 2)

    @property
    def kept(self) -> int:
        """Of the newest messages, which no summary covers yet."""
        return max(0, int(self.budget * self.target) - self.summary_limit)


class WorkingMemory(Protocol):
    """A rule for what is sent; pure."""

    @property
    def limit(self) -> TailLimit:
        """What `select` must be given of a session."""
        ...

    @property
    def compaction(self) -> Compaction | None:
        """None where nothing is ever summarised."""
        ...

    def select(self, tail: Tail) -> Selection:
        """A tool call is never parted from its result.

        A turn that ended without an answer is its user's message and one marker line; what was superseded is
        nothing.
        """
        ...
