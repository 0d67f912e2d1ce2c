"""What a model would be sent next of a session, part by part."""

from collections.abc import Sequence
from dataclasses import dataclass

from hector.domain.ids import SessionKey
from hector.domain.memory import Sent, Summary
from hector.domain.tools import ToolSpec


@dataclass(frozen=True, slots=True)
class Context:
    """As a new message would find it; that message would come last, and whole."""

    key: SessionKey
    budget: int | None
    """In tokens, of the summary and the messages; None where messages are counted instead."""
    instructions: str
    instruction_tokens: int
    tools: Sequence[tuple[ToolSpec, int]]
    """With the tokens of each."""
    summary: Summary | None
    """As it is stored."""
    summary_sent: Sent | None
    messages: Sequence[Sent]
    """Oldest first."""
    last_seq: int
    """Of the session's newest message; 0 if there is none."""

    @property
    def tokens(self) -> int:
        """Of the summary and the messages."""
        return sum(each.tokens for each in self.sent)

    @property
    def all_tokens(self) -> int:
        return self.tokens + self.instruction_tokens + sum(tokens for _, tokens in self.tools)

    @property
    def sent(self) -> Sequence[Sent]:
        return [*([self.summary_sent] if self.summary_sent else []), *self.messages]

    @property
    def not_sent(self) -> tuple[int, int] | None:
        """The first and the last seq of what no summary covers and for which there is no room."""
        first = (self.summary.through_seq if self.summary else 0) + 1
        last = min((seq for each in self.messages for seq in each.seqs), default=self.last_seq + 1) - 1
        return (first, last) if first <= last else None
