"""The last messages of a session, by number."""

from collections.abc import Sequence
from dataclasses import dataclass

from hector.domain.memory import Tail, TailLimit
from hector.domain.messages import Message
from hector.memory.context import summary_message, units


@dataclass(frozen=True, slots=True)
class BufferWindow:
    """The last `window_size` messages before the turn's own; fewer where a call would lose its result.

    A summary, if the session has one, comes first and does not count: its messages are not read.
    """

    window_size: int

    @property
    def limit(self) -> TailLimit:
        return TailLimit(messages=self.window_size)

    def select(self, tail: Tail, own: Sequence[Message]) -> Sequence[Message]:
        chosen: list[Message] = []
        for unit in reversed(units(tail.messages)):
            if len(chosen) + len(unit.messages) > self.window_size:
                break
            chosen[:0] = unit.messages
        head = [summary_message(tail.summary.text)] if tail.summary else []
        return [*head, *chosen, *own]
