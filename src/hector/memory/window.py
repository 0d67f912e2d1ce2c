"""The last messages of a session, by number."""

from dataclasses import dataclass

from hector.domain.memory import Compaction, Selection, Sent, Tail, TailLimit
from hector.memory.context import sent, summary_message, units


@dataclass(frozen=True, slots=True)
class BufferWindow:
    """The last `window_size` messages before the turn's own; fewer where a call would lose its result.

    A summary, if the session has one, comes first and does not count: its messages are not read.
    """

    window_size: int

    @property
    def limit(self) -> TailLimit:
        return TailLimit(messages=self.window_size)

    @property
    def compaction(self) -> Compaction | None:
        return None

    def select(self, tail: Tail) -> Selection:
        chosen: list[Sent] = []
        for unit in reversed(units(tail.messages)):
            if len(chosen) + len(unit.messages) > self.window_size:
                break
            chosen[:0] = sent(unit)
        summary = tail.summary
        head = [Sent(summary_message(summary.text), summary.tokens)] if summary and summary.text else []
        return Selection([*head, *chosen])
